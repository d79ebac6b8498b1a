"""SigmoidFocalLossLayer: its definition, and that of another library."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import functional as F
from layer_oracle import per_element, sigmoid_miss

pytestmark = pytest.mark.usefixtures("engine")


def term(x, c, t, label, p):
    miss, cross_entropy = sigmoid_miss(x, c, t, p)
    alpha = p["alpha"]
    if isinstance(alpha, list):
        alpha = alpha[c]
    elif alpha is not None:
        alpha = alpha * t + (1 - alpha) * (1 - t)
    return (1.0 if alpha is None else alpha) * miss ** p["gamma"] * cross_entropy


oracle = per_element(term, alpha=0.25, gamma=2.0)


def test_sigmoid_focal_loss_is_torchvisions_for_soft_targets_too():
    rng = np.random.RandomState(2)
    x, t = rng.randn(5, 3), rng.rand(5, 3)
    p = 1 / (1 + np.exp(-x))
    ce = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    expected = (ce * (1 - (p * t + (1 - p) * (1 - t))) ** 2 * (0.25 * t + 0.75 * (1 - t))).sum()
    loss, _ = F.sigmoid_focal_loss(x, t, normalization="NONE")
    assert loss == pytest.approx(expected, rel=1e-13)
