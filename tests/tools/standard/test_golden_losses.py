"""Every loss that a real Caffe computed: the standard layers give its numbers, and so do the plug-in layers that
define the same loss."""

from __future__ import annotations

import numpy as np
import pytest

import golden
from caffe_tools.errors import NetError
from caffe_tools.prototxt.message import Message

PLUGINS = {
    "MultinomialLogisticLoss": "CrossEntropyLossLayer",
    "Sigmoid": "SigmoidLayer",
    "SigmoidCrossEntropyLoss": "SigmoidCrossEntropyLossLayer",
    "Softmax": "SoftmaxLayer",
    "SoftmaxWithLoss": "SoftmaxLossLayer",
}
"""Standard types that a plug-in layer defines as well."""

ANOTHER_LOSS = {
    "sigmoidce_ignore_0_soft": "Caffe cuts targets to int before it looks for ignore_label, ours compares them exactly",
    "softmaxloss_fractional_labels": "Caffe cuts labels to int, ours refuse them (tested below)",
}
ABOVE_THE_FLOOR = {
    "softmaxloss_extreme_100": "scores up to 100",
    "softmaxloss_extreme_1e4": "scores up to 10000",
    "softmaxloss_extreme_1e4_4d": "scores up to 10000",
}
"""Losses that Caffe floors, -log FLT_MIN = 87.34 at each position, and ours do not. Neither floors the gradient."""


@pytest.mark.parametrize("case", golden.parameters("loss"))
def test_a_loss_gives_the_numbers_of_a_real_caffe(case):
    if "Python" in case.layers:
        pytest.skip("its module is not at hand; the same loss in caffe_layers is compared below")
    arrays = case.arrays()
    net = case.net()
    golden.feed(net, arrays)
    golden.run(net, arrays)
    assert golden.disagreements(net, arrays, tolerance=0 if case.is_exact else 1e-5) == {}


# Plug-in layers in the place of standard ones ------------------------------------------------------------------------


def plugin_cases():
    cases = []
    for kind in ("loss", "layer"):
        for type_ in PLUGINS:
            cases += [found for found in golden.parameters(kind, type_) if found.id not in [c.id for c in cases]]
    return cases


def with_plugins(message: Message) -> Message:
    """The net with ``type: "Python"`` layers of caffe_layers in the place of the standard ones."""
    for layer in message.messages("layer"):
        type_ = layer.first("type")
        if type_ not in PLUGINS:
            continue
        layer.set("type", ["Python"])
        python = layer.add("python_param", Message())
        python.add("module", "caffe_layers")
        python.add("layer", PLUGINS[type_])
        python.add("param_str", param_str(layer))
        for name in ("loss_param", "softmax_param"):
            layer.remove(name)
        # Caffe gives its own losses the weight 1, but a Python layer none
        if "Loss" in type_ and "loss_weight" not in layer:
            layer.add("loss_weight", 1.0)
    return message


def param_str(layer: Message) -> str:
    values = [item for name in ("softmax_param", "loss_param") for found in layer.messages(name) for item in found]
    return ", ".join(f"{name}: {value}" for name, value in values)


@pytest.mark.parametrize("case", plugin_cases())
def test_a_plug_in_layer_gives_the_numbers_of_a_real_caffe(case):
    if case.name in ANOTHER_LOSS:
        pytest.skip(ANOTHER_LOSS[case.name])
    arrays = case.arrays()
    net = case.net(with_plugins(case.message()))
    golden.feed(net, arrays)
    golden.run(net, arrays)
    floored = ("total_loss", "data/loss") if case.name in ABOVE_THE_FLOOR else ()
    assert golden.disagreements(net, arrays, tolerance=1e-5, leave_out=floored) == {}
    if floored:
        assert net.total_loss > arrays["total_loss"]


@pytest.mark.usefixtures("shared")
def test_a_plug_in_layer_refuses_the_fractional_labels_that_caffe_cuts():
    case = golden.case("softmaxloss_fractional_labels")
    arrays = case.arrays()
    net = case.net(with_plugins(case.message()))
    golden.feed(net, arrays)
    with pytest.raises(NetError, match=r"layer '.*' \(Python\): SoftmaxLossLayer: .*label.*\.75"):
        net.forward()


# The multi-label softmax layer that ours descends from ----------------------------------------------------------------


def multi_label_net(case):
    message = case.message()
    for layer in message.messages("layer"):
        for python in layer.messages("python_param"):
            python.set("module", ["caffe_layers"])
            python.set("layer", ["SoftmaxLossLayer"])
            python.add("param_str", "'target': 'multi_label'")
    return case.net(message)


@pytest.mark.parametrize("case", golden.parameters("loss", "Python"))
def test_the_multi_label_loss_is_that_of_the_layer_in_the_wild(case):
    net, arrays = golden.computed(case, multi_label_net(case))
    assert golden.disagreements(net, arrays, tolerance=1e-5, leave_out=("diff",)) == {}


@pytest.mark.parametrize("case", golden.parameters("loss", "Python"))
def test_the_multi_label_gradient_is_that_of_the_layer_in_the_wild_times_loss_weight(case):
    net, arrays = golden.computed(case, multi_label_net(case))
    loss_weight = arrays["diff/loss"]
    wanted = arrays["diff/score"] * loss_weight
    assert golden.relative_difference(net.blobs["score"].diff, wanted) <= 1e-5
    assert not net.blobs["label"].diff.any()


@pytest.mark.parametrize("case", golden.parameters("loss", "Python"))
def test_the_multi_label_layer_leaves_its_bottoms_as_they_are(case):
    net, arrays = golden.computed(case, multi_label_net(case))
    for name in ("score", "label"):
        np.testing.assert_array_equal(net.blobs[name].data, arrays[f"in/{name}"])
