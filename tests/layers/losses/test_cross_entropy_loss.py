"""CrossEntropyLossLayer: its definition, and what it is beside the softmax loss."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import functional as F
from layer_oracle import per_position

pytestmark = pytest.mark.usefixtures("engine")


def term(x, c, t, label, p):
    return -t * np.log(max(x[c], 1e-20))


oracle = per_position(term)


def test_of_a_softmax_it_is_the_softmax_loss():
    x, y = np.random.RandomState(0).randn(4, 5), np.array([1, 4, 0, 1])
    assert F.cross_entropy_loss(F.softmax(x), y)[0] == pytest.approx(F.softmax_loss(x, y)[0], rel=1e-13)
