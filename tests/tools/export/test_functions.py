"""Plug-in layers as ONNX functions: one call for each layer in the exported model, and one for its gradient."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from caffe_tools.check.check import run_layers
from caffe_tools.export.export import ExportOptions, export
from exported_model import outputs_of, run_model
from nets import FORCE, drawn_net, inner_product, inputs, layer, python

TRAINING = ExportOptions(training=True, input_gradients=True)


def classifier(loss="SoftmaxLossLayer", param_str="", labels=(6,), name="classify"):
    text = inputs(data=(6, 4), label=labels) + inner_product("ip", "data", "score", outputs=5)
    return text + python(name, loss, "score label", "loss", f"param_str: '{param_str}'")


def calls(exported):
    """Calls of functions: (operator, domain, attributes)."""
    return [
        (node.op_type, node.domain, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
        for node in exported.model.graph.node
        if node.domain
    ]


def test_a_layer_is_one_call_and_its_gradient_another():
    exported = export(drawn_net(classifier()), TRAINING)
    assert [(name, domain) for name, domain, _ in calls(exported)] == [
        ("SoftmaxLoss", "caffe_layers"),
        ("SoftmaxLossGradient", "caffe_layers"),
    ]


def test_an_inference_model_has_no_gradient():
    exported = export(drawn_net(classifier(), "TEST"))
    assert [function.name for function in exported.model.functions] == ["SoftmaxLoss"]


def test_the_calls_are_named_after_their_layer():
    exported = export(drawn_net(classifier(name="my loss")), TRAINING)
    names = [node.name for node in exported.model.graph.node if node.domain]
    assert names == ["my loss/SoftmaxLoss", "my loss/SoftmaxLossGradient"]


def test_the_layers_parameters_are_attributes_of_the_call():
    text = classifier("SoftmaxFocalLossLayer", '{"gamma": 1.5, "alpha": [1, 2, 3, 4, 5], "normalization": "FULL"}')
    (_, _, attributes), _ = calls(export(drawn_net(text), TRAINING))
    assert attributes["gamma"] == 1.5
    assert attributes["alpha"] == [1, 2, 3, 4, 5]
    assert attributes["normalization"] == b"FULL"
    assert attributes["axis"] == 1
    assert "class_weight" not in attributes  # null


def test_the_domain_is_declared():
    exported = export(drawn_net(classifier()), TRAINING)
    assert {entry.domain: entry.version for entry in exported.model.opset_import} == {"": 18, "caffe_layers": 1}


def test_a_net_without_plug_in_layers_has_no_functions():
    exported = export(drawn_net(inputs(data=(2, 3)) + layer("relu", "ReLU", "data", "y"), "TEST"))
    assert not exported.model.functions
    assert [entry.domain for entry in exported.model.opset_import] == [""]


def test_layers_with_equal_bodies_share_one_function():
    text = inputs(a=(2, 4), b=(3, 5, 6))
    text += python("one", "SigmoidLayer", "a", "x") + python("two", "SigmoidLayer", "b", "y")
    exported = export(drawn_net(text, "TEST"))
    assert [function.name for function in exported.model.functions] == ["Sigmoid"]
    assert [name for name, _, _ in calls(exported)] == ["Sigmoid", "Sigmoid"]


def test_layers_with_other_bodies_are_numbered():
    losses = [
        python(f"loss{i}", "SoftmaxFocalLossLayer", "score label", f"loss{i}", f"param_str: 'gamma: {gamma}'")
        for i, gamma in enumerate([2, 0.5, 2])
    ]
    text = inputs(data=(6, 4), label=(6,)) + inner_product("ip", "data", "score") + "".join(losses)
    exported = export(drawn_net(text, "TEST"))
    assert [name for name, _, _ in calls(exported)] == ["SoftmaxFocalLoss", "SoftmaxFocalLoss_2", "SoftmaxFocalLoss"]
    assert [function.name for function in exported.model.functions] == ["SoftmaxFocalLoss", "SoftmaxFocalLoss_2"]


def test_a_users_layer_is_in_the_domain_of_its_package(tmp_path, monkeypatch):
    (tmp_path / "company_layers.py").write_text(
        "from caffe_layers import SigmoidLayer\n\n\nclass Squash(SigmoidLayer):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = inputs(data=(2, 3)) + python("squash", "Squash", "data", "y", module="company_layers")
    net = drawn_net(text, "TEST", allow_modules=["company_layers"])
    assert [(name, domain) for name, domain, _ in calls(export(net))] == [("Squash", "company_layers")]


def test_no_stored_tensor_is_left_over_in_the_graph():
    for options in (ExportOptions(), TRAINING, ExportOptions(inline=True)):
        graph = export(drawn_net(classifier("SoftmaxFocalLossLayer", "gamma: 0.7")), options).model.graph
        used = {name for node in graph.node for name in node.input}
        assert {tensor.name for tensor in graph.initializer} <= used


def test_the_nodes_of_a_function_are_standard_operators():
    exported = export(drawn_net(classifier("SigmoidFocalLossLayer", "", labels=(6, 5))), TRAINING)
    assert len(exported.model.functions) == 2
    for function in exported.model.functions:
        assert {node.domain for node in function.node} == {""}
        assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", 18)]


LOSSES = {
    "SoftmaxLossLayer": [("", (6,)), ("target: distribution, label_smoothing: 0.1", (6, 5))],
    "SigmoidCrossEntropyLossLayer": [("", (6, 5)), ("pos_weight: 2.5", (6, 5))],
    "SigmoidFocalLossLayer": [("normalization: POSITIVES", (6, 5)), ("target: index", (6,))],
    "SoftmaxFocalLossLayer": [("gamma: 0.5, class_weight: [1, 2, 3, 4, 5]", (6,))],
}
CASES = [(loss, *case) for loss, cases in LOSSES.items() for case in cases]


@pytest.mark.parametrize("loss, param_str, labels", CASES)
def test_inline_gives_the_same_numbers_without_functions(loss, param_str, labels):
    net = drawn_net(classifier(loss, param_str, labels))
    called = run_model(export(net, TRAINING), net)
    inline = export(net, ExportOptions(training=True, input_gradients=True, inline=True))
    assert not inline.model.functions and not calls(inline)
    assert {entry.domain for entry in inline.model.opset_import} == {""}
    for name, array in run_model(inline, net).items():
        np.testing.assert_array_equal(called[name], array, err_msg=name)


@pytest.mark.parametrize("loss, param_str, labels", CASES)
def test_the_reference_evaluator_runs_the_functions_to_the_same_numbers(loss, param_str, labels):
    net = drawn_net(classifier(loss, param_str, labels))
    exported = export(net, ExportOptions(training=True, input_gradients=True, dynamic_batch=True))
    onnx.checker.check_model(exported.model, full_check=True)
    results = run_model(exported, net)
    assert exported.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    feeds = exported.feeds(run_layers(net, training=True)[1])
    found = ReferenceEvaluator(exported.model).run(None, feeds)
    for name, array in zip(outputs_of(exported), found, strict=True):
        scale = np.abs(results[name]).max()
        np.testing.assert_allclose(array, results[name], rtol=0, atol=1e-5 * scale, err_msg=name)


def test_a_blob_that_two_layers_read_gets_the_sum_of_their_gradients_through_functions():
    text = inputs(data=(3, 4)) + inner_product("ip", "data", "score")
    text += python("one", "SigmoidLayer", "score", "a") + python("two", "SoftmaxLayer", "score", "b")
    net = drawn_net(FORCE + text)
    exported = export(net, ExportOptions(training=True))
    layers, fed = run_layers(net, training=True)
    results = run_model(exported, net, **{f"{name}.diff": fed[f"top_diff/{name}"] for name in "ab"})
    np.testing.assert_allclose(results["ip/1.diff"], layers.arrays["pdiff/ip/1"], rtol=1e-5, atol=1e-6)


def test_a_blob_inside_a_function_that_is_an_output_too_keeps_its_name():
    text = inputs(data=(3, 4)) + python("one", "SigmoidLayer", "data", "x") + layer("relu", "ReLU", "x", "y")
    exported = export(drawn_net(text, "TEST"), ExportOptions(all_blobs=True))
    assert outputs_of(exported) == ["x", "y"]
    assert [list(node.output) for node in exported.model.graph.node if node.domain] == [["x"]]
