"""The exported model: what its values are called, which outputs it has in which order, which gradients they hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from caffe_tools.errors import ExportError
from caffe_tools.export.export import ExportOptions, export
from exported_model import initializers_of, inputs_of, outputs_of, run_model
from nets import FORCE, drawn_net, euclidean_loss, inner_product, inputs, layer

REGRESSION = inputs(data=(4, 5), target=(4, 3))


# Names ---------------------------------------------------------------------------------------------------------------


def test_blobs_keep_their_names_and_learnable_blobs_are_numbered_by_layer():
    exported = export(drawn_net(inputs(data=(4, 5)) + inner_product("ip", "data", "score"), "TEST"))
    assert (inputs_of(exported), outputs_of(exported)) == (["data"], ["score"])
    assert {"ip/0", "ip/1"} <= set(initializers_of(exported))


def test_of_in_place_results_the_last_has_the_plain_name_and_those_before_are_numbered():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x")
    text += layer("relu", "ReLU", "x", "x") + layer("sigmoid", "Sigmoid", "x", "x")
    exported = export(drawn_net(text, "TEST"))
    nodes = exported.model.graph.node
    assert outputs_of(exported) == ["x"]
    made = {name for node in nodes for name in node.output}
    assert {"x@1", "x@2", "x"} <= made
    assert next(node.op_type for node in nodes if "x@2" in node.output) == "Relu"


def test_a_graph_input_keeps_its_name_where_layers_work_in_place_on_it():
    exported = export(drawn_net(inputs(data=(4, 5)) + layer("relu", "ReLU", "data", "data"), "TEST"))
    assert (inputs_of(exported), outputs_of(exported)) == (["data"], ["data@2"])
    assert exported.outputs == {"data/data": "data@2"}


def test_the_diff_of_an_in_place_output_does_not_take_the_name_of_the_inputs_diff():
    net = drawn_net(FORCE + inputs(data=(4, 5)) + layer("relu", "ReLU", "data", "data"))
    exported = export(net, ExportOptions(training=True, input_gradients=True))
    assert inputs_of(exported) == ["data", "data@2.diff"]
    assert outputs_of(exported) == ["data@2", "data.diff"]


@pytest.mark.parametrize(
    "first, second",
    [
        ("ip/Gemm", "constant"),
        ("ip/MatMul", "relu/Relu"),
        ("ip/0", "ip/1"),
        ("x", "x.diff"),
        ("x", "x@1"),
        ("a blob", "/"),
        ("loss", "constant_2"),
    ],
)
def test_a_blob_keeps_its_name_though_other_values_would_be_called_so(first, second):
    text = (
        f'{inputs(data=(4, 5))} layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "{first}"'
        " inner_product_param { num_output: 3 } }"
        f' layer {{ name: "relu" type: "Power" bottom: "{first}" top: "{second}" power_param {{ power: 2 shift: 3 }} }}'
        f' layer {{ name: "end" type: "Power" bottom: "{second}" top: "end" power_param {{ power: 3 shift: 2 }} }}'
    )
    exported = export(drawn_net(FORCE + text), ExportOptions(training=True, all_blobs=True))
    blobs = {key: name for key, name in exported.outputs.items() if key.startswith("data/")}
    assert blobs == {f"data/{blob}": blob for blob in (first, second, "end")}
    names = [*inputs_of(exported), *outputs_of(exported)]
    assert len(set(names)) == len(names)


def test_a_blob_that_is_another_ones_alias_is_an_output_of_its_own_name():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x") + layer("flat", "Flatten", "x", "flat")
    exported = export(drawn_net(text, "TEST"), ExportOptions(all_blobs=True))
    assert outputs_of(exported) == ["x", "flat"]


def test_the_copies_of_a_split_that_caffe_inserts_are_not_to_be_seen():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x")
    text += layer("relu", "ReLU", "x", "a") + layer("sigmoid", "Sigmoid", "x", "b")
    exported = export(drawn_net(FORCE + text), ExportOptions(training=True, all_blobs=True))
    assert not [name for name in outputs_of(exported) if "split" in name]
    assert "x.diff" in outputs_of(exported)


def test_the_tops_of_a_split_that_the_net_itself_has_are_blobs():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x") + layer("split", "Split", "x", "a b")
    exported = export(drawn_net(text, "TEST"))
    assert outputs_of(exported) == ["a", "b"]


def test_a_net_that_computes_nothing_passes_its_input_on():
    exported = export(drawn_net(inputs(data=(4, 5)) + layer("silence", "Silence", "data"), "TEST"))
    assert outputs_of(exported) == ["data@2"]


def test_data_that_no_layer_reads_is_no_input():
    text = REGRESSION + inputs(unused=(7,)) + inner_product("ip", "data", "x") + euclidean_loss("x")
    exported = export(drawn_net(text), ExportOptions(training=True, input_gradients=True))
    assert inputs_of(exported) == ["data", "target"]


# Inner blobs as outputs -----------------------------------------------------------------------------------------------

INNER = inputs(data=(4, 5)) + inner_product("ip", "data", "features") + layer("relu", "ReLU", "features", "features")
INNER += layer("flat", "Flatten", "features", "flat") + inner_product("last", "flat", "score")


def test_an_inner_blob_that_is_asked_for_is_an_output_behind_those_of_the_net():
    net = drawn_net(INNER, "TEST")
    exported = export(net, ExportOptions(blobs=["features"]))
    assert outputs_of(exported) == ["score", "features"]
    assert exported.outputs == {"data/score": "score", "data/features": "features"}
    results = run_model(exported, net)
    net.forward()
    np.testing.assert_allclose(results["features"], net.blobs["features"].data, rtol=1e-5)  # behind its ReLU


def test_two_blobs_that_are_one_value_are_two_outputs():
    net = drawn_net(INNER, "TEST")
    exported = export(net, ExportOptions(blobs=["flat", "features"]))
    assert outputs_of(exported) == ["score", "flat", "features"]
    results = run_model(exported, net)
    np.testing.assert_array_equal(results["flat"], results["features"])


def test_an_output_of_the_net_that_is_asked_for_stays_one_output():
    exported = export(drawn_net(INNER, "TEST"), ExportOptions(blobs=["score", "flat", "flat"]))
    assert outputs_of(exported) == ["score", "flat"]


def test_a_training_model_has_the_inner_blobs_that_are_asked_for_behind_its_own_outputs():
    text = REGRESSION + inner_product("ip", "data", "x") + euclidean_loss("x")
    exported = export(drawn_net(text), ExportOptions(training=True, blobs=["x"]))
    assert outputs_of(exported) == ["loss", "ip/0.diff", "ip/1.diff", "x"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("featurse", "^the net has no blob 'featurse': did you mean 'features'\\?$"),
        ("zzz", "^the net has no blob 'zzz': it has data, features, flat, score$"),
        ("data", "^blob 'data' is what the model is fed, and cannot be an output too$"),
    ],
)
def test_what_cannot_be_an_output_is_said(name, message):
    with pytest.raises(ExportError, match=message):
        export(drawn_net(INNER, "TEST"), ExportOptions(blobs=[name]))


def test_a_blob_that_folding_leaves_out_cannot_be_an_output():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x") + layer("norm", "BatchNorm", "x", "norm")
    with pytest.raises(ExportError, match="^blob 'x' vanishes into the layer before it: export without fold$"):
        export(drawn_net(text, "TEST"), ExportOptions(fold=True, blobs=["x"]))


# Outputs of a training export ----------------------------------------------------------------------------------------

BATCH_NORM = (
    REGRESSION
    + inner_product("ip", "data", "x")
    + layer("norm", "BatchNorm", "x", "norm")
    + layer("sigmoid", "Sigmoid", "x", "extra")
    + euclidean_loss("norm")
)
PARAMETER_DIFFS = ["ip/0.diff", "ip/1.diff", "norm/0.diff", "norm/1.diff", "norm/2.diff"]
STATISTICS = ["norm/0.after", "norm/1.after", "norm/2.after"]


def test_a_training_model_gives_losses_then_parameter_diffs_then_statistics_then_other_outputs():
    exported = export(drawn_net(BATCH_NORM), ExportOptions(training=True))
    assert outputs_of(exported) == ["loss", *PARAMETER_DIFFS, *STATISTICS, "extra"]


def test_with_input_gradients_the_inputs_diffs_follow_those_of_the_parameters():
    exported = export(drawn_net(BATCH_NORM), ExportOptions(training=True, input_gradients=True))
    assert outputs_of(exported) == ["loss", *PARAMETER_DIFFS, "data.diff", "target.diff", *STATISTICS, "extra"]


def test_an_input_that_no_gradient_reaches_has_a_diff_of_zeros():
    text = inputs(data=(4, 5), label=(4,)) + inner_product("ip", "data", "x")
    net = drawn_net(text + layer("loss", "SoftmaxWithLoss", "x label", "loss"))
    results = run_model(export(net, ExportOptions(training=True, input_gradients=True)), net)
    assert results["data.diff"].any()
    np.testing.assert_array_equal(results["label.diff"], np.zeros(4))


def test_an_inference_model_has_the_nets_outputs_alone():
    exported = export(drawn_net(BATCH_NORM))
    assert outputs_of(exported) == ["extra", "loss"]


def test_several_losses_stand_in_the_order_of_their_layers():
    text = REGRESSION + inner_product("ip", "data", "x")
    text += layer("first", "EuclideanLoss", "x target", "first", "loss_weight: 2")
    text += layer("second", "EuclideanLoss", "target x", "second", "loss_weight: 3")
    assert outputs_of(export(drawn_net(text), ExportOptions(training=True)))[:2] == ["first", "second"]


def test_statistics_have_zero_diffs_and_their_new_values():
    net = drawn_net(BATCH_NORM)
    results = run_model(export(net, ExportOptions(training=True)), net)
    for name in PARAMETER_DIFFS[2:]:
        assert not results[name].any()
    net.forward()
    for index, name in enumerate(STATISTICS):
        np.testing.assert_allclose(results[name], net.params["norm"][index].data, rtol=1e-5)
    assert results["norm/2.after"] == 1


def test_what_has_no_learning_rate_has_a_diff_of_zeros():
    more = "param { lr_mult: 0 } param { lr_mult: 1 }"
    net = drawn_net(REGRESSION + inner_product("ip", "data", "x", more) + euclidean_loss("x"))
    results = run_model(export(net, ExportOptions(training=True)), net)
    np.testing.assert_array_equal(results["ip/0.diff"], np.zeros((3, 5)))
    assert results["ip/1.diff"].any()


def test_a_shared_parameter_is_stored_once_and_its_diff_is_the_sum():
    share = 'param { name: "w" } param { name: "b" }'
    text = inputs(data=(4, 3), target=(4, 3))
    text += inner_product("one", "data", "x", share) + inner_product("two", "x", "y", share) + euclidean_loss("y")
    net = drawn_net(text)
    exported = export(net, ExportOptions(training=True))
    assert [name for name in initializers_of(exported) if "/" in name] == ["one/0", "one/1"]
    assert outputs_of(exported) == ["loss", "one/0.diff", "one/1.diff"]
    assert exported.outputs["pdiff/two/0"] == exported.outputs["pdiff/one/0"] == "one/0.diff"
    results = run_model(exported, net)
    net.forward()
    net.backward()
    np.testing.assert_allclose(results["one/0.diff"], net.params["one"][0].diff, rtol=1e-5)


def test_a_parameter_that_one_of_two_layers_keeps_fixed_has_the_diff_of_the_other_alone():
    text = inputs(data=(4, 3), target=(4, 3))
    text += inner_product("one", "data", "x", 'param { name: "w" lr_mult: 0 }')
    text += inner_product("two", "x", "y", 'param { name: "w" }') + euclidean_loss("y")
    net = drawn_net(text)
    results = run_model(export(net, ExportOptions(training=True)), net)
    net.forward()
    net.backward()
    np.testing.assert_allclose(results["one/0.diff"], net.params["two"][0].diff, rtol=1e-5)


def test_the_loss_weight_scales_the_gradients_and_not_the_loss():
    def results(weight):
        net = drawn_net(REGRESSION + inner_product("ip", "data", "x") + euclidean_loss("x", more=weight))
        return run_model(export(net, ExportOptions(training=True)), net)

    plain, weighted = results(""), results("loss_weight: 0.5")
    assert weighted["loss"] == plain["loss"]
    np.testing.assert_allclose(weighted["ip/0.diff"], plain["ip/0.diff"] / 2, rtol=1e-6)


def test_a_loss_weight_on_any_layer_weights_every_element_of_its_top():
    text = inputs(data=(4, 5)) + inner_product("ip", "data", "x") + layer("p", "Power", "x", "p", "loss_weight: 3")
    net = drawn_net(text)
    exported = export(net, ExportOptions(training=True))
    assert outputs_of(exported)[0] == "p"
    np.testing.assert_allclose(run_model(exported, net)["ip/1.diff"], np.full(3, 4 * 3.0))


def test_a_top_with_a_loss_weight_that_others_read_gets_both_gradients():
    text = REGRESSION + inner_product("ip", "data", "x") + layer("p", "Power", "x", "p", "loss_weight: 3")
    net = drawn_net(text + euclidean_loss("p"))
    exported = export(net, ExportOptions(training=True))
    assert outputs_of(exported)[:2] == ["p", "loss"]
    results = run_model(exported, net)
    net.forward()
    net.backward()
    np.testing.assert_allclose(results["ip/1.diff"], net.params["ip"][1].diff, rtol=1e-5)


def test_no_gradient_passes_a_bottom_with_propagate_down_false():
    text = REGRESSION + inner_product("one", "data", "x") + inner_product("two", "x", "y", "propagate_down: false")
    net = drawn_net(text + euclidean_loss("y"))
    results = run_model(export(net, ExportOptions(training=True)), net)
    assert not results["one/0.diff"].any()
    assert results["two/0.diff"].any()


def test_without_a_loss_the_diffs_of_the_outputs_are_inputs():
    net = drawn_net(inputs(data=(4, 5)) + inner_product("ip", "data", "x"))
    exported = export(net, ExportOptions(training=True, input_gradients=True))
    assert inputs_of(exported) == ["data", "x.diff"]
    assert outputs_of(exported) == ["x", "ip/0.diff", "ip/1.diff", "data.diff"]
    diff = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    results = run_model(exported, net, **{"x.diff": diff})
    np.testing.assert_allclose(results["data.diff"], diff @ net.params["ip"][0].data, rtol=1e-5)
    np.testing.assert_allclose(results["ip/1.diff"], diff.sum(0), rtol=1e-5)


# Stored tensors ------------------------------------------------------------------------------------------------------


def test_weights_are_stored_once_whatever_needs_them():
    net = drawn_net(BATCH_NORM)
    exported = export(net, ExportOptions(training=True, input_gradients=True))
    names = initializers_of(exported)
    assert len(set(names)) == len(names)
    large = [tensor.name for tensor in exported.model.graph.initializer if np.prod(tensor.dims) == 15]
    assert large == ["ip/0"]


def test_the_model_has_the_weights_of_the_moment_it_is_asked_for():
    net = drawn_net(inputs(data=(4, 5)) + inner_product("ip", "data", "x"), "TEST")
    before = net.params["ip"][0].data.copy()
    model = export(net).model
    net.params["ip"][0].data[...] = 0
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(stored["ip/0"], before)


# Dropout -------------------------------------------------------------------------------------------------------------

DROPOUT = inputs(data=(100, 100)) + layer("drop", "Dropout", "data", "y", "dropout_param { dropout_ratio: 0.4 }")


def test_dropout_draws_its_own_random_numbers_in_train():
    net = drawn_net(DROPOUT)
    net.blobs["data"].data[...] = 1
    exported = export(net)
    assert "RandomUniformLike" in {node.op_type for node in exported.model.graph.node}
    result = run_model(exported, net)["y"]
    np.testing.assert_allclose(np.unique(result), [0, 1 / 0.6], rtol=1e-6)
    assert abs((result == 0).mean() - 0.4) < 0.02  # 4 standard deviations
    assert abs(result.mean() - 1) < 0.04


def test_in_test_phase_dropout_is_gone():
    exported = export(drawn_net(DROPOUT, "TEST"))
    assert {node.op_type for node in exported.model.graph.node} <= {"Identity"}
