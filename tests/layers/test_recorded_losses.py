"""The numbers of a real Caffe's own losses and activations, from the plug-in layers that define the same."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import caffe_layers
from caffe_layers import LabelError
from layer_blobs import Run

pytestmark = pytest.mark.usefixtures("engine")

SAME = {
    "SoftmaxWithLoss": caffe_layers.SoftmaxLossLayer,
    "SigmoidCrossEntropyLoss": caffe_layers.SigmoidCrossEntropyLossLayer,
    "MultinomialLogisticLoss": caffe_layers.CrossEntropyLossLayer,
    "Softmax": caffe_layers.SoftmaxLayer,
    "Sigmoid": caffe_layers.SigmoidLayer,
}
FLOORED = ("softmaxloss_extreme_100", "softmaxloss_extreme_1e4", "softmaxloss_extreme_1e4_4d")
"""Caffe's loss of a position stops at -log FLT_MIN there; the gradient does not."""


def _replay(folder, name):
    """(the case's arrays, the plug-in layer after its forward pass, the names of its bottoms, the top and its diff)"""
    arrays = np.load(folder / f"{name}.npz")
    text = (folder / f"{name}.prototxt").read_text()
    layer = text[text.rindex("layer {") :]
    (kind,) = re.findall(r'type: "(\w+)"', layer)
    params = {key: json.loads(value) for key, value in re.findall(r"(axis|ignore_label|normalize): (\S+)", layer)}
    params.update(re.findall(r"(normalization): (\w+)", layer))
    bottoms, (top,) = re.findall(r'bottom: "(\w+)"', layer), re.findall(r'top: "(\w+)"', layer)
    run = Run(SAME[kind], params, [arrays[f"in/{bottom}"] for bottom in bottoms]).forward()
    loss_weight = re.findall(r"loss_weight: (\S+)", layer)
    if kind.endswith("Loss"):
        return arrays, run, bottoms, top, float(loss_weight[0]) if loss_weight else 1.0
    return arrays, run, bottoms, top, arrays[f"top_diff/{top}"]


def _assert_close(actual, expected):
    assert np.abs(actual.reshape(expected.shape) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_case_of_a_loss_that_a_plug_in_layer_defines_agrees(shared):
    folder = shared / "golden"
    index = json.loads((folder / "index.json").read_text())
    names = [name for name, case in index.items() if len(case["layers"]) == 1 and case["layers"][0] in SAME]
    names = [name for name in names if index[name]["kind"] == "loss"]
    assert len(names) > 50
    for name in names:
        if name in ("softmaxloss_fractional_labels", "sigmoidce_ignore_0_soft"):
            continue
        arrays, run, bottoms, top, top_diff = _replay(folder, name)
        _assert_close(run.backward(top_diff), arrays[f"diff/{bottoms[0]}"])
        if name in FLOORED:
            assert run.top[0].data[0] > arrays[f"data/{top}"]
        else:
            _assert_close(run.top[0].data, arrays[f"data/{top}"])


def test_labels_that_caffe_cuts_to_integers_are_refused(shared):
    with pytest.raises(LabelError, match="the label at .* is 2.75"):
        _replay(shared / "golden", "softmaxloss_fractional_labels")


def test_soft_targets_stay_where_0_is_ignored(shared):
    arrays, run, bottoms, _, top_diff = _replay(shared / "golden", "sigmoidce_ignore_0_soft")
    target = arrays[f"in/{bottoms[1]}"]
    gradient = run.backward(top_diff)
    assert ((gradient != 0) == (target != 0)).all()
    assert (arrays[f"diff/{bottoms[0]}"][target < 1] == 0).all()
