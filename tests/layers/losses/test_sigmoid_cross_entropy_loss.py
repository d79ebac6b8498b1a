"""SigmoidCrossEntropyLossLayer: its definition, and that of another library."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import functional as F
from layer_oracle import per_element, sigmoid_miss

pytestmark = pytest.mark.usefixtures("engine")


def term(x, c, t, label, p):
    _, cross_entropy = sigmoid_miss(x, c, t, p)
    return cross_entropy


oracle = per_element(term)


def test_sigmoid_cross_entropy_is_torchs_bce_with_logits():
    rng = np.random.RandomState(1)
    x, t, pos_weight = rng.randn(5, 3), rng.rand(5, 3), [1.0, 2.0, 0.5]
    p = 1 / (1 + np.exp(-x))
    expected = -(np.array(pos_weight) * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    loss, _ = F.sigmoid_cross_entropy_loss(x, t, pos_weight=pos_weight, normalization="FULL")
    assert loss == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("background", "channel_of_label_2"), [(0, 1), (3, 2), (1, 1), (None, 2)])
def test_the_background_label_of_a_sigmoid_loss_has_no_channel(background, channel_of_label_2):
    x, one_hot = np.array([[0.5, -1.0, 2.0]]), np.zeros((1, 3))
    one_hot[0, channel_of_label_2] = 1
    loss, gradient = F.sigmoid_cross_entropy_loss(x, [2], target="index", background_label=background)
    expected, expected_gradient = F.sigmoid_cross_entropy_loss(x, one_hot)
    assert loss == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-15)
