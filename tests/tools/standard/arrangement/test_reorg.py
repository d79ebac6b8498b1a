"""Reorg and Region of YOLO v2, index by index."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import assert_transposed, diffs_of, exported_tops, net_over, top_of

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


REGION = "region_param { classes: 3 coords: 4 num: 2 %s }"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("softmax", [True, False])
def test_region_activates_each_box_of_each_cell(softmax):
    x = np.random.default_rng(1).normal(size=(2, 16, 3, 5)).astype(np.float32)
    wanted = x.astype(np.float64).reshape(2, 2, 8, 3, 5).copy()
    wanted[:, :, [0, 1, 4]] = sigmoid(wanted[:, :, [0, 1, 4]])
    classes = wanted[:, :, 5:]
    wanted[:, :, 5:] = np.exp(classes) / np.exp(classes).sum(2, keepdims=True) if softmax else sigmoid(classes)
    net = net_over("Region", {"x": x}, REGION % f"do_softmax: {str(softmax).lower()} anchors: 1.5 anchors: 2")
    np.testing.assert_allclose(net.forward()["top"], wanted.reshape(x.shape), rtol=1e-5)
    more = np.concatenate([x, x])
    np.testing.assert_allclose(exported_tops(net, {"x": more})["top"][2:], wanted.reshape(x.shape), rtol=1e-5)
    assert not diffs_of(net, top=np.ones_like(x))["x"].any()


def test_region_refuses_channels_that_make_no_boxes():
    with pytest.raises(NetError, match="2 boxes of 4 coords and 3 classes need N×16×H×W"):
        top_of("Region", {"x": X}, REGION % "")
