"""SoftmaxFocalLossLayer: its definition, and that of another library."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import functional as F
from layer_oracle import per_position, softmax_miss

pytestmark = pytest.mark.usefixtures("engine")


def term(x, c, t, label, p):
    miss, nll = softmax_miss(x, c)
    alpha = p["alpha"]
    if isinstance(alpha, list):
        alpha = alpha[label]
    elif alpha is not None and label == p["background_label"]:
        alpha = 1 - alpha
    return t * (1.0 if alpha is None else alpha) * miss ** p["gamma"] * nll


oracle = per_position(term, alpha=0.25, gamma=2.0)


def test_softmax_focal_loss_is_detectrons():
    x, y = np.array([[1.0, 2.0, 0.5], [0.1, -1.0, 3.0], [0.3, 0.2, 0.1]]), np.array([0, 2, -1])
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    expected = -(0.75 * (1 - p[0, 0]) ** 2 * np.log(p[0, 0]) + 0.25 * (1 - p[1, 2]) ** 2 * np.log(p[1, 2])) / 1
    loss, _ = F.softmax_focal_loss(x, y, ignore_label=-1, normalization="POSITIVES")
    assert loss == pytest.approx(expected, rel=1e-13)
