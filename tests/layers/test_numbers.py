"""float32 against float64 of the same inputs, position by position, on scores of every size."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_layers import functional as F
from layer_cases import CASES, LOSSES, Case

pytestmark = pytest.mark.usefixtures("engine")

EPSILON = float(np.finfo(np.float32).eps)
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
SCALES = (1.0, 10.0, 30.0, 90.0, 110.0, 1e4)
"""exp(-90) is a denormal float32, exp(-110) is 0."""


def _scores(channels, scale, seed, number=40):
    rng = np.random.RandomState(seed)
    return (rng.randn(number, channels) * scale).astype(np.float32), rng


def _check(function, x, labels, loss_term, gradient_term, **params):
    """One position: the loss within 4 ulp and the gradient within 16 ulp of float64, relative to the largest term."""
    params["normalization"] = "NONE"
    loss, gradient = function(x[None], labels[None], **params)
    exact, exact_gradient = function(x[None].astype(np.float64), labels[None].astype(np.float64), **params)
    assert abs(loss - exact) <= 4 * EPSILON * loss_term(exact) + SMALLEST
    assert np.abs(gradient - exact_gradient).max() <= 16 * EPSILON * gradient_term(exact_gradient) + SMALLEST


def _the_loss(loss):
    return abs(loss)


def _the_largest(gradient):
    return np.abs(gradient).max()


@pytest.mark.parametrize("channels", [2, 5, 200])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["softmax_loss", "softmax_focal_loss"])
def test_the_loss_of_a_label_is_exact_to_its_own_size(name, scale, channels):
    x, rng = _scores(channels, scale, 0)
    labels = np.where(rng.rand(len(x)) < 0.5, x.argmax(axis=1), rng.randint(0, channels, len(x)))
    for gamma in [0, 0.3, 0.5, 2, 2.7, 3] if "focal" in name else [None]:
        params = {} if gamma is None else {"gamma": gamma}
        for row, label in zip(x, labels, strict=True):
            _check(getattr(F, name), row, label, _the_loss, _the_largest, **params)


@pytest.mark.parametrize("channels", [2, 5, 200])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("target", ["distribution", "multi_label"])
def test_the_softmax_loss_of_dense_targets_is_exact_to_its_largest_term(target, scale, channels):
    x, rng = _scores(channels, scale, 1)
    t = (rng.rand(*x.shape) * (rng.rand(*x.shape) < 0.4)).astype(np.float32)
    for row, target_row in zip(x, t, strict=True):
        share = target_row / max(1, np.count_nonzero(target_row)) if target == "multi_label" else target_row
        # The gradient is a difference, p_c sum t - t_c: its terms are these two.
        largest = max(share.max(), share.sum() * F.softmax(row[None].astype(np.float64)).max())
        _check(F.softmax_loss, row, target_row, _the_loss, lambda _, largest=largest: largest, target=target)


@pytest.mark.parametrize("channels", [1, 5, 200])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["sigmoid_cross_entropy_loss", "sigmoid_focal_loss"])
def test_the_sigmoid_losses_of_yes_or_no_are_exact_to_their_own_size(name, scale, channels):
    x, rng = _scores(channels, scale, 2)
    t = (rng.rand(*x.shape) < 0.4).astype(np.float32)
    for gamma in [0.3, 0.5, 1.7, 2, 2.7, 3] if "focal" in name else [None]:
        params = {} if gamma is None else {"gamma": gamma}
        for row, target_row in zip(x, t, strict=True):
            _check(getattr(F, name), row, target_row, _the_loss, _the_largest, **params)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["sigmoid_cross_entropy_loss", "sigmoid_focal_loss"])
def test_the_sigmoid_losses_of_soft_targets_are_exact_to_their_largest_term(name, scale):
    x, rng = _scores(5, scale, 3)
    t = rng.rand(*x.shape).astype(np.float32)
    for row, target_row in zip(x, t, strict=True):
        p = F.sigmoid(row.astype(np.float64))
        # The gradient is a difference, (1 - t) p - t (1 - p), times at most 1 here (gamma 2 and |x| < 1e4: see below).
        largest = np.maximum((1 - target_row) * p, target_row * (1 - p)).max()
        gradient_term = (lambda _, v=largest: v) if name == "sigmoid_cross_entropy_loss" else _the_largest
        _check(getattr(F, name), row, target_row, _the_loss, gradient_term)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, None], ids=["no yes", "few yes", "many yes", "soft targets"])
@pytest.mark.parametrize("outlier", [None, -2.0], ids=["alike", "one of weight"])
@pytest.mark.parametrize("shape", [(300, 40), (2, 40, 90, 5)])
@pytest.mark.parametrize("name", ["sigmoid_cross_entropy_loss", "sigmoid_focal_loss"])
def test_the_sigmoid_losses_of_thousands_are_as_exact(name, shape, outlier, share):
    rng = np.random.RandomState(6)
    t = rng.rand(*shape).astype(np.float32) if share is None else (rng.rand(*shape) < share).astype(np.float32)
    x = (rng.randn(*shape) * 3).astype(np.float32)
    if outlier is not None:
        x = np.where(t > 0.5, np.float32(20), np.float32(-20)) + x
        x.flat[0], t.flat[0] = outlier, 0
    loss, gradient = getattr(F, name)(x, t)
    exact, exact_gradient = getattr(F, name)(x.astype(np.float64), t)
    assert loss == pytest.approx(exact, rel=4 * EPSILON)
    # The gradient of a soft target is a difference of terms up to 1; else it has but one.
    terms = np.abs(exact_gradient) if share is not None else np.abs(exact_gradient) + 1 / len(x)
    assert (np.abs(gradient - exact_gradient) <= 16 * EPSILON * terms + SMALLEST).all()


@pytest.mark.parametrize("gamma", [None, 1.3, 2, 3])
@pytest.mark.parametrize("shape", [(1500, 6), (3, 6, 700), (2, 6, 40, 30)])
def test_the_softmax_losses_of_thousands_are_as_exact_whatever_the_size_of_their_neighbours(shape, gamma):
    rng = np.random.RandomState(7)
    positions = (shape[0], 1, *shape[2:])
    scale = np.choose(rng.randint(0, 20, positions), [1.0] * 16 + [20.0, 60.0, 300.0, 1e4])
    x = (rng.randn(*shape) * scale).astype(np.float32)
    labels = np.where(rng.rand(*positions) < 0.5, x.argmax(axis=1)[:, None], rng.randint(0, 6, positions))[:, 0]
    weights = rng.rand(*labels.shape).astype(np.float32)
    params = {"ignore_label": 3, "normalization": "NONE", **({} if gamma is None else {"gamma": gamma})}
    function = F.softmax_loss if gamma is None else F.softmax_focal_loss
    loss, gradient = function(x, labels, weights, **params)
    exact, exact_gradient = function(x.astype(np.float64), labels, weights, **params)
    assert loss == pytest.approx(exact, rel=4 * EPSILON)
    largest = np.abs(exact_gradient).max(axis=1, keepdims=True)
    assert (np.abs(gradient - exact_gradient) <= 16 * EPSILON * largest + SMALLEST).all()


@pytest.mark.parametrize("shape", [(1500, 6), (3, 6, 700), (2, 6, 40, 30)])
@pytest.mark.parametrize("target", ["distribution", "multi_label"])
def test_dense_targets_of_thousands_are_as_exact_whatever_the_size_of_their_neighbours(target, shape):
    rng = np.random.RandomState(8)
    positions = (shape[0], 1, *shape[2:])
    scale = np.choose(rng.randint(0, 20, positions), [1.0] * 16 + [20.0, 60.0, 300.0, 1e4])
    x = (rng.randn(*shape) * scale).astype(np.float32)
    t = (rng.rand(*shape) * (rng.rand(*shape) < 0.4)).astype(np.float32)
    loss, gradient = F.softmax_loss(x, t, target=target, normalization="NONE")
    exact, exact_gradient = F.softmax_loss(x.astype(np.float64), t, target=target, normalization="NONE")
    assert loss == pytest.approx(exact, rel=4 * EPSILON)
    # The gradient is a difference, p_c sum t - t_c: each of its terms is at most the sum.
    mass = t.sum(axis=1, keepdims=True)
    assert (np.abs(gradient - exact_gradient) <= 16 * EPSILON * mass + SMALLEST).all()


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0, 90.0])
@pytest.mark.parametrize("target", ["distribution", "multi_label"])
def test_a_one_hot_target_gives_the_loss_and_the_gradient_of_the_label(target, scale):
    for row in _scores(5, scale, 9)[0]:
        one_hot = (row == row.max()).astype(np.float32)
        exact, exact_gradient = F.softmax_loss(row[None].astype(np.float64), one_hot.argmax(keepdims=True))
        loss, gradient = F.softmax_loss(row[None], one_hot[None], target=target)
        assert abs(loss - exact) <= 4 * EPSILON * exact + SMALLEST
        if exact < 1:  # Above, the gradient's terms p_c and t_c differ by more than they lose.
            assert np.abs(gradient - exact_gradient).max() <= 16 * EPSILON * np.abs(exact_gradient).max() + SMALLEST


@pytest.mark.parametrize("scale", SCALES)
def test_probabilities_are_exact_to_the_largest_of_them(scale):
    x, _ = _scores(7, scale, 4)
    exact = F.softmax(x.astype(np.float64))
    assert np.abs(F.softmax(x) - exact).max() <= 4 * EPSILON
    exact = F.sigmoid(x.astype(np.float64))
    assert (np.abs(F.sigmoid(x) - exact) <= 4 * EPSILON * exact + SMALLEST).all()


@given(st.lists(st.floats(-LARGEST, LARGEST, width=32), min_size=3, max_size=3), st.integers(0, 2))
def test_finite_scores_of_any_size_give_finite_results_without_a_warning(row, label):
    x = np.array([row], np.float32)
    one_hot = np.eye(3, dtype=np.float32)[[label]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [
            F.softmax_loss(x, [label]),
            F.softmax_loss(x, one_hot * 0.7, target="multi_label", label_smoothing=0.1),
            F.softmax_focal_loss(x, [label], gamma=0.5),
            F.sigmoid_cross_entropy_loss(x, one_hot, pos_weight=3.0, class_weight=[1, 2, 3]),
            F.sigmoid_focal_loss(x, one_hot * 0.5, gamma=2.5),
            F.cross_entropy_loss(x, [label]),
        ]
        assert np.isfinite(F.softmax(x)).all() and np.isfinite(F.sigmoid(x)).all()
    for loss, gradient in results:
        assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("case", [case for case in CASES if case.spread > 3], ids=str)
def test_extreme_scores_give_the_loss_of_the_definition(case):
    arrays = case.arrays(6)
    loss, _ = case.function(*arrays, **case.params)
    assert loss == pytest.approx(case.oracle(*arrays, **case.params), rel=4 * EPSILON)


@pytest.mark.parametrize("layer", LOSSES)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), channel=st.integers(0, 2))
def test_nan_in_gives_nan_out_unless_it_is_ignored(layer, seed, channel):
    case = Case(layer, (6, 3, 2), {"ignore_label": 2}, "position")
    scores, labels, weights = case.arrays(seed)
    labels[:, ..., 0] = 1.0
    # The cross-entropy of probabilities knows the label's alone.
    channel = 1 if case.layer_class.scores_are_probabilities else channel
    scores[0, channel, 0] = np.nan
    loss, gradient = case.function(scores, labels, weights, **case.params)
    assert np.isnan(loss) and np.isnan(gradient[0, channel, 0])
    loss, gradient = case.function(scores, labels, np.zeros_like(weights), **case.params)
    assert np.isnan(loss) and np.isnan(gradient[0, channel, 0])
    labels[0, ..., 0] = 2.0
    loss, gradient = case.function(scores, labels, weights, **case.params)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
