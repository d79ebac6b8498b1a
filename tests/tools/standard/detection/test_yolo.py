"""Region, the last layer of YOLO v2, box by box."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import diffs_of, exported_tops, net_over, top_of

X = np.random.default_rng(0).normal(size=(2, 8, 4, 6)).astype(np.float32)
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
