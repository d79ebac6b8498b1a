"""What a net is fed: labels that fit the layer that reads them, and arrays of an .npz that fit the net."""

from __future__ import annotations

import os

import numpy as np
import pytest

from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.files import load_arrays, save_arrays
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.inputs import feed
from nets import FORCE, drawn_net, inner_product, inputs, layer, python

# Drawn ---------------------------------------------------------------------------------------------------------------


def label_of(text):
    net = drawn_net(text)
    net.forward()  # a label out of range would be refused
    return net.blobs["label"].data


def loss(type_, label_shape, more="", classes=5, plug_in=""):
    text = inputs(score=(40, classes), label=label_shape)
    if plug_in:
        return text + python("loss", plug_in, "score label", "loss", f"param_str: '{more}'")
    return text + layer("loss", type_, "score label", "loss", more)


INDEX_LOSSES = ["SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss", "Accuracy"]


@pytest.mark.parametrize("type_", INDEX_LOSSES)
def test_a_class_index_is_drawn_for_a_layer_that_takes_one(type_):
    labels = label_of(loss(type_, (40,)))
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}


def test_the_classes_are_counted_on_the_layers_axis():
    text = inputs(score=(4, 3, 2), label=(4, 3))
    labels = label_of(text + layer("loss", "SoftmaxWithLoss", "score label", "loss", "softmax_param { axis: 2 }"))
    assert set(np.unique(labels)) <= {0, 1}


def test_infogain_gets_an_index_and_a_matrix():
    text = inputs(score=(40, 3), label=(40,), infogain=(1, 1, 3, 3))
    labels = label_of(text + layer("loss", "InfogainLoss", "score label infogain", "loss"))
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_a_pair_is_similar_or_not():
    text = inputs(one=(40, 3), other=(40, 3), label=(40,))
    labels = label_of(text + layer("loss", "ContrastiveLoss", "one other label", "loss"))
    assert set(np.unique(labels)) == {0, 1}


def test_the_target_of_a_regression_is_any_number():
    labels = label_of(loss("EuclideanLoss", (40, 5)))
    assert (labels < 0).any() and len(np.unique(labels)) == labels.size


@pytest.mark.parametrize(
    "plug_in, param_str, shape, values",
    [
        ("SoftmaxLossLayer", "", (40,), {0, 1, 2, 3, 4}),
        ("SoftmaxFocalLossLayer", "", (40,), {0, 1, 2, 3, 4}),
        ("SoftmaxLossLayer", "target: multi_label", (40, 5), {0, 1}),
        ("SigmoidCrossEntropyLossLayer", "", (40, 5), {0, 1}),
        ("SigmoidFocalLossLayer", "", (40, 5), {0, 1}),
    ],
)
def test_a_plug_in_loss_gets_the_labels_that_its_target_asks_for(plug_in, param_str, shape, values):
    assert set(np.unique(label_of(loss("", shape, param_str, plug_in=plug_in)))) == values


def test_a_distribution_sums_to_1_along_the_axis():
    labels = label_of(loss("", (40, 5), "target: distribution", plug_in="SoftmaxLossLayer"))
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert labels.min() >= 0


@pytest.mark.parametrize("plug_in", ["CrossEntropyLossLayer", ""])
def test_a_layer_that_takes_probabilities_gets_numbers_between_0_and_1(plug_in):
    net = drawn_net(loss("MultinomialLogisticLoss", (40,), plug_in=plug_in))
    assert 0 < net.blobs["score"].data.min() and net.blobs["score"].data.max() <= 1


def test_a_weight_of_each_position_is_not_negative():
    text = inputs(score=(40, 5), label=(40,), weight=(40,))
    net = drawn_net(text + python("loss", "SoftmaxLossLayer", "score label weight", "loss"))
    assert net.blobs["weight"].data.min() >= 0


def test_labels_that_two_layers_read_through_a_split_are_labels():
    text = inputs(data=(40, 3), label=(40,)) + inner_product("ip", "data", "score", outputs=5)
    text += layer("loss", "SoftmaxWithLoss", "score label", "loss") + layer("acc", "Accuracy", "score label", "acc")
    assert set(np.unique(label_of(text))) == {0, 1, 2, 3, 4}


def test_what_is_drawn_depends_on_the_seed_alone():
    one, same, other = (drawn_net(inputs(data=(4, 5)), seed=seed).blobs["data"].data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_diffs_of_the_outputs_are_drawn_for_a_net_without_a_loss():
    net = drawn_net(FORCE + inputs(data=(4, 5)) + layer("relu", "ReLU", "data", "y"))
    assert net.blobs["y"].diff.std() > 0.5


def test_of_the_outputs_diffs_those_that_are_not_given_are_zero_where_one_is():
    net = drawn_net(FORCE + inputs(data=(4, 5)) + layer("a", "ReLU", "data", "a") + layer("b", "ReLU", "data", "b"))
    net.clear_param_diffs()
    for name in ("a", "b"):
        net.blobs[name].diff[...] = 0
    draw_inputs(net, feed(net, {"top_diff/a": np.ones((4, 5))}, "f.npz"))
    assert net.blobs["a"].diff.all() and not net.blobs["b"].diff.any()


def test_blobs_that_a_data_layer_fills_are_left_to_it():
    filler = 'dummy_data_param { shape { dim: 4 } data_filler { type: "constant" value: 7 } }'
    net = drawn_net(layer("dummy", "DummyData", "", "x", filler) + layer("relu", "ReLU", "x", "y"))
    assert (net.blobs["x"].data == 7).all()


# Fed -----------------------------------------------------------------------------------------------------------------

NET = inputs(data=(4, 5)) + inner_product("ip", "data", "x")


def test_an_input_brings_its_own_batch_size():
    net = drawn_net(NET)
    assert feed(net, {"in/data": np.ones((7, 5))}, "f.npz") == {"in/data"}
    assert net.blobs["x"].shape == (7, 3)
    assert (net.blobs["data"].data == 1).all()


def test_learnable_blobs_are_fed_by_layer_and_number():
    net = drawn_net(NET)
    feed(net, {"param/ip/1": np.arange(3)}, "f.npz")
    np.testing.assert_array_equal(net.params["ip"][1].data, [0, 1, 2])


def test_a_layer_with_a_slash_in_its_name_is_fed_too():
    net = drawn_net(NET.replace('"ip"', '"block/ip"'))
    feed(net, {"param/block/ip/1": np.arange(3)}, "f.npz")
    assert net.params["block/ip"][1].data[2] == 2


def test_results_of_another_run_in_the_file_are_let_pass():
    results = {"data/x": np.ones(1), "diff/x": np.ones(1), "pdiff/ip/0": np.ones(1), "total_loss": np.ones(())}
    assert feed(drawn_net(NET), {**results, "param_after/ip/0": np.ones(1)}, "f.npz") == set()


@pytest.mark.parametrize(
    "key, array, message",
    [
        ("data", np.ones(3), r"the key 'data' is none that a net is fed: those begin with in/…, param/…, top_diff/…"),
        ("in/dat", np.ones(3), r"in/dat: the net has no blob 'dat'; blobs that can be fed: data$"),
        ("in/x", np.ones(3), r"in/x: layer 'ip' \(InnerProduct\) makes the blob 'x' in every forward pass"),
        ("in/data", np.ones((2, 9)), r"layer 'ip' \(InnerProduct\)"),
        ("in/data", np.array(["a"]), r"in/data holds <U1, not numbers"),
        ("param/ip/0", np.ones((5, 3)), r"param/ip/0 has the shape \(5, 3\), the net's blob has \(3, 5\)"),
        ("param/ip/2", np.ones(3), r"param/ip/2: the net has no such learnable blob \(layer 'ip' has 2\)"),
        ("param/ip/-1", np.ones(3), r"param/ip/-1: the net has no such learnable blob"),
        ("param/pi/0", np.ones(3), r"param/pi/0: the net has no such learnable blob \(layer 'pi' has 0\)"),
        ("top_diff/y", np.ones(3), r"top_diff/y: the net has no output 'y': it has x"),
        ("top_diff/x", np.ones(3), r"top_diff/x has the shape \(3,\), the net's blob has \(4, 3\)"),
    ],
)
def test_an_array_that_does_not_fit_is_named_with_its_file(key, array, message):
    with pytest.raises(NetError, match=message) as raised:
        feed(drawn_net(NET), {key: array}, "f.npz")
    assert "f.npz" in str(raised.value) or key == "in/data"
    assert "\n" not in str(raised.value)


def test_a_net_with_a_loss_takes_no_diffs_of_outputs():
    text = NET + inputs(target=(4, 3)) + layer("loss", "EuclideanLoss", "x target", "loss")
    with pytest.raises(NetError, match="top_diff/loss: backward starts at this net's losses, not at given diffs"):
        feed(drawn_net(text), {"top_diff/loss": np.ones(())}, "f.npz")


@pytest.mark.usefixtures("project_root")
def test_what_a_data_layer_makes_cannot_be_fed():
    from caffe_tools.net.net import Net

    net = Net("prototxt_examples/lenet_digits.prototxt", "TRAIN")
    with pytest.raises(NetError, match=r"layer 'digits' \(Python\) makes the blob 'pixels' in every forward pass"):
        feed(net, {"in/pixels": np.ones((64, 1, 8, 8))}, "f.npz")


# Files ---------------------------------------------------------------------------------------------------------------


def test_saved_arrays_are_read_again(tmp_path):
    arrays = {"in/a b": np.ones((2, 3), np.float32), "param/x/y/0": np.array(2.5)}
    save_arrays(tmp_path / "f.npz", arrays)
    read = load_arrays(tmp_path / "f.npz")
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def broken_file(path, kind):
    if kind == "missing":
        return "is not there"
    if kind == "folder":
        path.mkdir()
        return "is a folder"
    if kind == "text":
        path.write_text("in/data: 1 2 3")
        return r"is no .npz \(a text file\?\)"
    if kind == "empty":
        path.touch()
        return r"is no .npz \(the file is empty\)"
    if kind == "single array":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
        return "holds a single array"
    if kind == "pickle":
        np.savez(path, data=np.array([{}], dtype=object))
        return "is no .npz of plain arrays: Object arrays cannot be loaded"
    np.savez_compressed(path, data=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] if kind == "truncated" else whole[:500] + b"\0" * 100 + whole[600:])
    return "is no .npz of plain arrays"


KINDS = ["missing", "folder", "text", "empty", "single array", "pickle", "truncated", "damaged"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read_is_an_error_of_one_line(kind, tmp_path):
    message = broken_file(tmp_path / "f.npz", kind)
    with pytest.raises(NetError, match=f"f.npz {message}") as raised:
        load_arrays(tmp_path / "f.npz")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(CaffeToolsError, match="cannot write .*f.npz: there is no such folder"):
        save_arrays(tmp_path / "no" / "f.npz", {"a": np.ones(1)})
    (tmp_path / "folder").mkdir()
    with pytest.raises(CaffeToolsError, match="cannot write .*folder: "):
        save_arrays(tmp_path / "folder", {"a": np.ones(1)})
    assert os.listdir(tmp_path) == ["folder"]
