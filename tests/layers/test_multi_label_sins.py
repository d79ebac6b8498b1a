"""The faults of the multi-label softmax layer that goes around for PyCaffe, each of which ours must not have.

That layer subtracts the row maximum from its bottom in place, takes no notice of ``top[0].diff``, divides by the number
of labels even where there is none, and has the gradient of 0/1 labels whatever the labels are.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from caffe_layers import SoftmaxLossLayer
from layer_blobs import Run

pytestmark = pytest.mark.usefixtures("engine")

SCORES = np.array([[1.0, 2.0, 0.5, -1.0], [3.0, 0.1, 0.2, 7.0], [0.0, 1.0, -2.0, 0.3]], np.float32)
LABELS = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], np.float32)


def _run(scores, labels, dtype=np.float32):
    return Run(SoftmaxLossLayer, {"target": "multi_label"}, [scores, labels], dtype=dtype).forward()


def test_the_loss_is_the_mean_over_samples_of_the_mean_over_their_labels():
    p = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    expected = -(LABELS * np.log(p)).sum(axis=1) / LABELS.sum(axis=1)
    assert _run(SCORES, LABELS).top[0].data[0] == pytest.approx(expected.mean(), rel=1e-6)


def test_the_scores_are_not_written():
    run = _run(SCORES, LABELS)
    run.backward()
    np.testing.assert_array_equal(run.bottom[0].data, SCORES)
    np.testing.assert_array_equal(run.bottom[1].data, LABELS)


def test_the_loss_weight_scales_the_gradient():
    run = _run(SCORES, LABELS)
    np.testing.assert_allclose(run.backward(2.5), 2.5 * run.backward(1.0), rtol=3e-7)


def test_a_sample_without_labels_gives_zero_loss_and_gradient():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = _run(SCORES[:1], np.zeros((1, 4)))
        assert run.top[0].data[0] == 0
        assert not run.backward().any()


def test_a_sample_without_labels_counts_as_a_sample_and_leaves_the_others_alone():
    labels = LABELS.copy()
    labels[1] = 0
    run, two = _run(SCORES, labels), _run(SCORES[[0, 2]], LABELS[[0, 2]])
    assert run.top[0].data[0] == pytest.approx(two.top[0].data[0] * 2 / 3, rel=1e-6)
    np.testing.assert_allclose(run.backward()[[0, 2]], two.backward() * 2 / 3, rtol=1e-5)
    assert not run.backward()[1].any()


def test_the_gradient_of_real_valued_labels_is_that_of_the_loss():
    labels = np.array([[0.2, 0, 3.0, 0], [0, 0.5, 0, 0.1], [1.5, 0.4, 0, 0]])
    gradient = _run(SCORES, labels, np.float64).backward()
    for place in np.ndindex(*SCORES.shape):
        losses = []
        for step in (1e-5, -1e-5):
            moved = SCORES.astype(np.float64)
            moved[place] += step
            losses.append(_run(moved, labels, np.float64).top[0].data[0])
        assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6, abs=1e-10)


def test_scores_that_overflow_an_exponential_give_a_finite_loss():
    run = _run(SCORES * 1e4, LABELS)
    assert np.isfinite(run.top[0].data).all() and np.isfinite(run.backward()).all()
