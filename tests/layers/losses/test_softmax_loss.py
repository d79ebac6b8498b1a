"""SoftmaxLossLayer: its definition, and that of another library."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import functional as F
from layer_oracle import per_position, softmax_miss

pytestmark = pytest.mark.usefixtures("engine")


def term(x, c, t, label, p):
    _, nll = softmax_miss(x, c)
    return t * nll


oracle = per_position(term)


def test_softmax_loss_with_weight_normalization_is_torchs_weighted_mean_with_label_smoothing():
    rng = np.random.RandomState(0)
    x, y, w, eps = rng.randn(9, 4), rng.randint(0, 4, 9), [0.2, 1.0, 3.0, 0.7], 0.1
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    nll = sum(-w[c] * log_p[n, c] for n, c in enumerate(y)) / sum(w[c] for c in y)
    smooth = -(log_p * w).sum() / sum(w[c] for c in y)
    loss, _ = F.softmax_loss(x, y, class_weight=w, label_smoothing=eps, normalization="WEIGHT")
    assert loss == pytest.approx((1 - eps) * nll + eps / 4 * smooth, rel=1e-13)


def test_a_label_and_its_one_hot_distribution_are_the_same_target():
    x, y = np.random.RandomState(3).randn(4, 5), np.array([1, 4, 0, 1])
    loss, gradient = F.softmax_loss(x, y, label_smoothing=0.2, class_weight=[1, 2, 3, 4, 5])
    other, other_gradient = F.softmax_loss(
        x, np.eye(5)[y], target="distribution", label_smoothing=0.2, class_weight=[1, 2, 3, 4, 5]
    )
    assert loss == pytest.approx(other, rel=1e-14)
    np.testing.assert_allclose(gradient, other_gradient, rtol=1e-13, atol=1e-16)
