"""Channels that change places with each other (ShuffleChannel) or with pixels (Reorg), index by index."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import assert_transposed, exported_tops, net_over, top_of

X = np.random.default_rng(0).normal(size=(2, 8, 4, 6)).astype(np.float32)


def darknet_reorg(x: np.ndarray, stride: int, reverse: bool) -> np.ndarray:
    """Darknet's loops over the bottom's sizes, both arrays flat."""
    batch, channels, height, width = x.shape
    parts = channels // stride**2
    flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
    for n, c, h, w in np.ndindex(x.shape):
        one = w + width * (h + height * (c + channels * n))
        part, offset = c % parts, c // parts
        w2, h2 = w * stride + offset % stride, h * stride + offset // stride
        other = w2 + width * stride * (h2 + height * stride * (part + parts * n))
        if reverse:
            out[other] = flat[one]
        else:
            out[one] = flat[other]
    if reverse:
        return out.reshape(batch, parts, height * stride, width * stride)
    return out.reshape(batch, channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize("reverse", [True, False])
def test_elements_go_where_darknet_puts_them(reverse):
    net = net_over("Reorg", {"x": X}, f"reorg_param {{ stride: 2 reverse: {str(reverse).lower()} }}")
    np.testing.assert_array_equal(net.forward()["top"], darknet_reorg(X, 2, reverse))
    more = np.concatenate([X, -X])
    np.testing.assert_array_equal(exported_tops(net, {"x": more})["top"], darknet_reorg(more, 2, reverse))
    assert_transposed(net, "x")


@pytest.mark.parametrize("text, message", [("", "stride is missing"), ("stride: 3", "stride 3 must divide")])
def test_a_stride_that_does_not_fit_is_refused(text, message):
    with pytest.raises(NetError, match=message):
        top_of("Reorg", {"x": X}, f"reorg_param {{ {text} }}")


WIDE = np.random.default_rng(1).normal(size=(2, 6, 5, 7)).astype(np.float32)


def test_channels_are_dealt_out_to_the_groups():
    net = net_over("ShuffleChannel", {"x": WIDE}, "shuffle_channel_param { group: 3 }")
    np.testing.assert_array_equal(net.forward()["top"], WIDE[:, [0, 2, 4, 1, 3, 5]])
    more = np.concatenate([WIDE, -WIDE])
    np.testing.assert_array_equal(exported_tops(net, {"x": more})["top"], more[:, [0, 2, 4, 1, 3, 5]])
    assert_transposed(net, "x")


def test_groups_must_divide_the_channels():
    with pytest.raises(NetError, match="group 4 must divide the 6 channels"):
        top_of("ShuffleChannel", {"x": WIDE}, "shuffle_channel_param { group: 4 }")
