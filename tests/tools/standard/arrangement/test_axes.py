"""Permute: order (Caffe-SSD's own numbers are among the golden layers)."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import exported_tops, net_over, top_of

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def test_axes_that_the_order_leaves_out_follow():
    top = top_of("Permute", {"x": X}, "permute_param { order: 2 order: 0 }")
    np.testing.assert_array_equal(top, X.transpose(2, 0, 1, 3))


def test_a_symbolic_batch_may_move():
    net = net_over("Permute", {"x": X}, "permute_param { order: 1 order: 2 order: 3 order: 0 }")
    more = np.concatenate([X, X])
    np.testing.assert_array_equal(exported_tops(net, {"x": more})["top"], more.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("order", ["order: 4", "order: 1 order: 1"])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(NetError, match="must name axes from 0 to 3, each at most once"):
        top_of("Permute", {"x": X}, f"permute_param {{ {order} }}")
