"""The embedded net, used as one uses pycaffe's."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.net.net import TEST, TRAIN, Net
from nets import fill_inputs, inputs, layer, net_of

IP = "inner_product_param { num_output: 4 weight_filler { type: 'xavier' } }"
TEXT = (
    "name: 'small' "
    + inputs(x=(2, 3), label=(2,))
    + layer("ip", "InnerProduct", "x", "s", IP)
    + layer("loss", "SoftmaxWithLoss", "s label", "loss", "include { phase: TRAIN }")
    + layer("prob", "Softmax", "s", "p", "include { phase: TEST }")
)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "net.prototxt"
    file.write_text(TEXT)
    return file


@pytest.fixture
def net():
    net = net_of(TEXT)
    net.blobs["x"].data[...] = [[1, -2, 0.5], [0, 3, -1]]
    net.blobs["label"].data[...] = [3, 1]
    return net


def error_of(text, phase="TRAIN", **keywords):
    with pytest.raises(CaffeToolsError) as raised:
        net_of(text, phase, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- made


def test_a_net_is_made_of_a_prototxt_and_a_phase(path):
    assert Net(str(path), TRAIN).outputs == ["loss"] and Net(path, phase="TEST").outputs == ["label", "p"]


def test_a_net_is_made_of_a_prototxt_weights_and_a_phase_too(path, net, tmp_path):
    weights = tmp_path / "w.caffemodel"
    net.save(weights)
    for made in (Net(path, str(weights), TEST), Net(path, TEST, weights=weights), Net(path, TEST, 0, [], weights)):
        assert made.phase == "TEST"
        np.testing.assert_array_equal(made.params["ip"][0].data, net.params["ip"][0].data)


def test_level_and_stages_choose_the_layers(tmp_path):
    file = tmp_path / "net.prototxt"
    rules = "include { min_level: 1 stage: 'extra' }"
    file.write_text(TEXT + layer("more", "ReLU", "x", "more", rules))
    assert "more" in Net(file, TRAIN, 1, ["extra"]).layer_dict
    assert "more" not in Net(file, TRAIN, 0, ["extra"]).layer_dict


def test_where_no_phase_is_given_it_is_test():
    assert net_of(TEXT, None).phase == "TEST"


@pytest.mark.parametrize("phase", [2, -1])
def test_an_unknown_phase_is_an_error(path, phase):
    with pytest.raises(NetError, match=rf"phase {phase} is none of TRAIN \(0\) and TEST \(1\)"):
        Net(path, phase)


def test_a_missing_prototxt_is_an_error(tmp_path):
    with pytest.raises(CaffeToolsError, match="none.prototxt"):
        Net(tmp_path / "none.prototxt", TEST)


def test_an_unknown_layer_type_is_an_error_with_its_place():
    assert error_of(inputs(x=(2,)) + layer("a", "Zebra", "x", "z")) == (
        "net.prototxt:2:1: layer 'a' (Zebra): layer type 'Zebra' is not covered: see `caffe-layers layers` for the"
        " types that are, or teach it with caffe_tools.layer_type"
    )


def test_loss_weight_is_given_for_each_top_or_not_at_all():
    text = inputs(x=(2,)) + layer("a", "ReLU", "x", "z", "loss_weight: 1 loss_weight: 2")
    assert "loss_weight is given 2 times for 1 tops: give it once for each, or not at all" in error_of(text)


# --- seen


def test_the_blobs_are_there_in_their_order_with_caffes_names(net):
    assert list(net.blobs) == ["x", "label", "s", "loss"]
    assert net.blobs["s"].shape == (2, 4) and net.blobs["loss"].shape == ()


def test_params_has_the_layers_that_have_some(net):
    assert {name: [blob.shape for blob in blobs] for name, blobs in net.params.items()} == {"ip": [(4, 3), (4,)]}


def test_layers_tell_their_type_and_blobs(net):
    assert [one.type for one in net.layers] == ["Input", "Input", "InnerProduct", "SoftmaxWithLoss"]
    assert net.layer_dict["ip"] is net.layers[2] and len(net.layers[2].blobs) == 2


def test_inputs_and_outputs(net):
    assert (net.inputs, net.outputs) == (["x", "label"], ["loss"])


def test_a_blob_that_is_changed_in_place_is_an_output_once():
    assert net_of(inputs(x=(2,)) + layer("a", "ReLU", "x", "x")).outputs == ["x"]


def test_bottom_names_and_top_names(net):
    assert net.bottom_names == {"x": [], "label": [], "ip": ["x"], "loss": ["s", "label"]}
    assert net.top_names == {"x": ["x"], "label": ["label"], "ip": ["s"], "loss": ["loss"]}


# --- forward


def test_forward_returns_the_outputs(net):
    outputs = net.forward()
    assert list(outputs) == ["loss"] and outputs["loss"] == net.blobs["loss"].data


def test_forward_returns_blobs_that_are_asked_for_besides(net):
    assert set(net.forward(["s"])) == {"loss", "s"}


def test_forward_takes_inputs_by_name(net):
    scores = net.forward(["s"], x=np.ones((2, 3)), label=np.zeros(2))["s"].copy()
    weight, bias = net.params["ip"]
    np.testing.assert_allclose(scores, np.ones((2, 3)) @ weight.data.T + bias.data, rtol=1e-6)


def test_forward_stops_behind_end_and_returns_its_tops(net):
    assert list(net.forward(end="ip")) == ["s"] and net.blobs["loss"].data == 0


def test_forward_starts_at_start_with_the_blobs_as_they_stand(net):
    net.blobs["s"].data[...] = [[0, 0, 0, 100], [0, 100, 0, 0]]
    assert net.forward(start="loss")["loss"] == 0


def test_forward_with_something_that_is_no_input_is_an_error(net):
    with pytest.raises(NetError, match="the net has no input 's': it has x, label"):
        net.forward(s=np.zeros((2, 4)))


def test_forward_with_an_array_of_another_shape_is_an_error_that_tells_what_to_do(net):
    with pytest.raises(NetError, match=r"input 'x' has the shape \(2, 3\), not \(5, 3\): call net\.blobs\['x'\]"):
        net.forward(x=np.zeros((5, 3)))


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_layer_that_the_net_has_not_is_an_error(net, where):
    with pytest.raises(NetError, match="the net has no layer 'conv': it has x, label, ip, loss"):
        net.forward(**{where: "conv"})


def test_a_blob_that_the_net_has_not_is_an_error(net):
    with pytest.raises(NetError, match="the net has no blob 'conv': it has x, label, s, loss"):
        net.forward(["conv"])


def test_total_loss_is_the_weighted_sum_of_all_losses():
    text = inputs(x=(2, 2)) + layer("a", "Power", "x", "y", "power_param { scale: 3 } loss_weight: 0.5")
    net = net_of(text)
    net.forward(x=np.array([[1, 2], [3, 4]]))
    assert net.total_loss == 15
    assert not np.array_equal(net.blobs["y"].data, 15)


def test_an_int_label_blob_may_be_given(net):
    assert net.forward(label=np.array([0, 2]))["loss"] > 0


# --- backward


def test_backward_gives_the_parameters_their_diffs(net):
    net.forward()
    net.backward()
    dscores = net.blobs["s"].diff
    np.testing.assert_allclose(net.params["ip"][0].diff, dscores.T @ net.blobs["x"].data, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(net.params["ip"][1].diff, dscores.sum(0), rtol=1e-5, atol=1e-7)


def test_backward_returns_the_diffs_of_the_inputs_and_those_asked_for(net):
    net.forward()
    assert set(net.backward(["s"])) == {"x", "label", "s"}


def test_backward_stops_behind_end_and_returns_the_diffs_of_its_bottoms(net):
    net.forward()
    assert list(net.backward(end="loss")) == ["s", "label"]
    assert net.blobs["s"].diff.any() and not net.params["ip"][0].diff.any()


def test_backward_starts_at_start_with_the_diffs_as_they_stand(net):
    net.forward()
    net.blobs["s"].diff[...] = 1
    net.backward(start="ip")
    np.testing.assert_allclose(net.params["ip"][1].diff, [2, 2, 2, 2])


def test_backward_takes_the_diffs_of_outputs():
    net = net_of("force_backward: true " + inputs(x=(2,)) + layer("a", "Power", "x", "y", "power_param { scale: 3 }"))
    net.forward()
    np.testing.assert_array_equal(net.backward(y=np.array([1, -2]))["x"], [3, -6])


def test_diffs_for_something_that_is_no_output_are_an_error(net):
    with pytest.raises(NetError, match="the net has no output 's': it has loss"):
        net.backward(s=np.zeros((2, 4)))


def test_diffs_of_parameters_add_up_until_they_are_cleared(net):
    net.forward()
    net.backward()
    once = net.params["ip"][0].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once, rtol=1e-6)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_diffs_of_bottoms_are_written_anew(net):
    net.forward()
    once = net.backward(["s"])["s"].copy()
    np.testing.assert_array_equal(net.backward(["s"])["s"], once)


def test_loss_weight_scales_the_gradient():
    def gradient(weight):
        text = TEXT.replace("include { phase: TRAIN }", f"loss_weight: {weight} include {{ phase: TRAIN }}")
        net = net_of(text)
        fill_inputs(net)
        net.blobs["label"].data[...] = 1
        net.forward()
        net.backward()
        assert net.blobs["loss"].diff == weight
        return net.params["ip"][0].diff.copy()

    np.testing.assert_allclose(gradient(2.5), 2.5 * gradient(1), rtol=1e-6)


def test_a_shared_top_with_a_loss_weight_gets_the_gradients_of_both_its_uses():
    text = (
        inputs(x=(2,))
        + layer("a", "Scale", "x", "y", "scale_param { axis: 0 } loss_weight: 3")
        + layer("b", "Power", "y", "z", "power_param { scale: 10 } loss_weight: 1")
    )
    net = net_of(text)
    net.forward(x=np.array([1, 2]))
    net.backward()
    assert net.total_loss == 3 * 3 + 30
    np.testing.assert_allclose(net.params["a"][0].diff, [13, 26])


def test_propagate_down_false_leaves_the_diff_below_alone():
    text = TEXT.replace("include { phase: TRAIN }", "propagate_down: [false, false] include { phase: TRAIN }")
    net = net_of(text)
    net.forward()
    net.backward()
    assert not net.blobs["s"].diff.any() and not net.params["ip"][0].diff.any()


def test_a_layer_in_place_goes_backward_from_what_it_read():
    text = (
        "force_backward: true "
        + inputs(x=(4,))
        + layer("square", "Power", "x", "x", "power_param { power: 2 }")
        + layer("last", "Power", "x", "y", "loss_weight: 1")
    )
    net = net_of(text)
    net.forward(x=np.array([1, -2, 3, 0]))
    np.testing.assert_array_equal(net.backward()["x"], [2, -4, 6, 0])


# --- other shapes


def test_reshape_carries_another_batch_size_through_the_net(net):
    net.blobs["x"].reshape(5, 3)
    net.blobs["label"].reshape(5)
    net.reshape()
    assert net.blobs["s"].shape == (5, 4)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.shape == (5, 3)


def test_forward_carries_other_shapes_too(net):
    net.blobs["x"].reshape(1, 3)
    net.blobs["label"].reshape(1)
    assert net.forward(["s"])["s"].shape == (1, 4)


def test_the_loss_weight_survives_a_reshape():
    net = net_of(inputs(x=(2,)) + layer("a", "Power", "x", "y", "loss_weight: 3"))
    net.blobs["x"].reshape(6)
    net.reshape()
    assert (net.blobs["y"].diff == 3).all()


def test_a_shape_that_does_not_fit_the_weights_is_an_error(net):
    net.blobs["x"].reshape(2, 5)
    with pytest.raises(NetError, match=r"layer 'ip' .* blob 0 has the shape \(4, 3\), but these bottoms need"):
        net.reshape()


def test_a_net_runs_on_after_a_shape_that_did_not_fit(net):
    before = net.forward()["loss"].copy()
    net.blobs["x"].reshape(2, 5)
    with pytest.raises(NetError):
        net.reshape()
    net.blobs["x"].reshape(2, 3)
    net.blobs["x"].data[...] = [[1, -2, 0.5], [0, 3, -1]]
    assert net.forward()["loss"] == before


def test_a_blob_of_no_elements_gives_a_loss_of_0():
    net = net_of(TEXT)
    net.blobs["x"].reshape(0, 3)
    net.blobs["label"].reshape(0)
    assert net.forward()["loss"] == 0


def test_a_layer_that_changes_the_shape_cannot_work_in_place():
    assert "it cannot work in place: its top 'x' has the shape (2, 4), not the bottom's (2, 3)" in error_of(
        inputs(x=(2, 3)) + layer("ip", "InnerProduct", "x", "x", IP)
    )


# --- backward before the first forward


BEFORE = "force_backward: true " + inputs(x=(2, 3))
DOUBLE = layer("double", "Power", "x", "y", "power_param { scale: 2 }")


def test_backward_before_the_first_forward_runs_on_the_data_as_it_stands():
    net = net_of(BEFORE + layer("square", "Power", "x", "y", "power_param { power: 2 }"))
    net.blobs["x"].data[...] = 3
    assert (net.backward(y=np.ones((2, 3)))["x"] == 6).all()


def test_forward_is_right_after_a_backward_that_came_first():
    net = net_of(BEFORE + DOUBLE)
    net.backward(y=np.ones((2, 3)))
    assert (net.forward(x=np.ones((2, 3)))["y"] == 2).all()
    assert (net.backward(y=np.ones((2, 3)))["x"] == 2).all()


def test_backward_of_dropout_before_the_first_forward_takes_its_random_numbers_for_0_as_caffe_does():
    net = net_of(BEFORE + layer("drop", "Dropout", "x", "y"))
    assert (net.backward(y=np.ones((2, 3)))["x"] == 0).all()


def test_backward_of_a_layer_in_place_after_a_reshape_takes_the_new_data():
    net = net_of(BEFORE + DOUBLE + layer("relu", "ReLU", "y", "y"))
    net.forward(x=np.full((2, 3), -1))
    net.blobs["x"].reshape(4, 3)
    net.reshape()
    net.blobs["y"].data[...] = 1
    assert (net.backward(y=np.ones((4, 3)))["x"] == 2).all()


def test_the_docstring_names_the_parameters():
    names = list(inspect.signature(Net).parameters)
    assert names[:5] == ["prototxt", "phase", "level", "stages", "weights"]
    assert all(f"``{name}``" in Net.__doc__ for name in names)
