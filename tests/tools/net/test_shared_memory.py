"""Blobs that share memory, as in Caffe: what changes one of them changes the others, in the net and in its export."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.check import check
from caffe_tools.errors import ExportError
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.graph.session import make_session
from caffe_tools.net.blob import Blob
from nets import inputs, layer, net_of

ALIASES = {
    "Reshape": "reshape_param { shape { dim: 0 dim: -1 } }",
    "Flatten": "",
    "Concat": "",
    "Slice": "",
    "Permute": "permute_param { order: [0, 1, 2, 3] }",
    "Split": "",
}
X = np.array([-1, 2, -3, 4, -5, 6, -7, 8], np.float32).reshape(1, 2, 2, 2)
COPY = inputs(data=X.shape) + layer("copy", "Power", "data", "x")
TIMES_10 = "power_param { scale: 10 }"


def ran(text, phase="TEST"):
    net = net_of(text, phase)
    net.blobs["data"].data[...] = X
    net.forward()
    return net


def assert_exported_agrees(net):
    """Every blob, and in TRAIN every gradient, of the layers and of the exported model."""
    net.blobs["data"].data[...] = X
    (result,) = check(net)
    assert result.agrees, [row for row in result.rows if not row.agrees]


@pytest.mark.parametrize("alias", ALIASES)
def test_a_layer_in_place_on_a_top_changes_the_bottom(alias):
    text = (
        COPY
        + layer("alias", alias, "x", "y", ALIASES[alias])
        + layer("relu", "ReLU", "y", "y")
        + layer("other", "Power", "x", "z", TIMES_10)
    )
    net = ran(text)
    assert net.blobs["x"].data.ravel().tolist() == [0, 2, 0, 4, 0, 6, 0, 8]
    assert net.blobs["z"].data.ravel().tolist() == [0, 20, 0, 40, 0, 60, 0, 80]
    assert_exported_agrees(net)


@pytest.mark.parametrize("alias", ALIASES)
def test_gradients_behind_a_top_that_is_changed_in_place(alias):
    """The reader that comes later sends its diff to the bottom itself, not through the layer in place."""
    text = (
        inputs(data=X.shape)
        + layer("scale", "Scale", "data", "x", "scale_param { axis: 0 num_axes: -1 filler { value: 1 } }")
        + layer("alias", alias, "x", "y", ALIASES[alias])
        + layer("relu", "ReLU", "y", "y")
        + layer("other", "Power", "x", "z", TIMES_10)
        + layer("sum_y", "Reduction", "y", "sy", "loss_weight: 1")
        + layer("sum_z", "Reduction", "z", "sz", "loss_weight: 1")
    )
    net = ran(text, "TRAIN")
    net.backward()
    assert net.blobs["x"].diff.ravel().tolist() == [10, 11, 10, 11, 10, 11, 10, 11]
    assert_exported_agrees(net)


def test_a_chain_of_aliases_is_changed_as_one():
    text = (
        COPY
        + layer("flat", "Flatten", "x", "y")
        + layer("back", "Reshape", "y", "w", "reshape_param { shape { dim: 4 dim: 2 } }")
        + layer("relu", "ReLU", "w", "w")
        + layer("from_x", "Power", "x", "a", TIMES_10)
        + layer("from_y", "Power", "y", "b", TIMES_10)
        + layer("twice", "Power", "w", "w", "power_param { scale: 2 }")
    )
    net = ran(text)
    assert net.blobs["a"].data.ravel().tolist() == [0, 20, 0, 40, 0, 60, 0, 80]
    for name in "xyw":
        assert net.blobs[name].data.ravel().tolist() == [0, 4, 0, 8, 0, 12, 0, 16]
    assert_exported_agrees(net)


def test_a_later_reader_reads_what_stands_there_then():
    text = (
        COPY
        + layer("before", "Power", "x", "b", TIMES_10)
        + layer("flat", "Flatten", "x", "y")
        + layer("relu", "ReLU", "y", "y")
        + layer("after", "Power", "x", "a", TIMES_10)
    )
    net = ran(text)
    assert net.blobs["b"].data.ravel().tolist() == [-10, 20, -30, 40, -50, 60, -70, 80]
    assert net.blobs["a"].data.ravel().tolist() == [0, 20, 0, 40, 0, 60, 0, 80]
    assert_exported_agrees(net)


def test_the_last_value_has_the_plain_name_in_the_model():
    text = COPY + layer("flat", "Flatten", "x", "y") + layer("relu", "ReLU", "y", "y")
    exported = export(net_of(text), ExportOptions(blobs=["x"]))
    (x,) = make_session(exported.model).run(["x"], {"data": X})
    assert x.ravel().tolist() == [0, 2, 0, 4, 0, 6, 0, 8]


def test_an_input_changed_through_its_alias():
    text = inputs(data=X.shape) + layer("flat", "Flatten", "data", "y") + layer("relu", "ReLU", "y", "y")
    net = ran(text + layer("other", "Power", "data", "z", TIMES_10))
    assert net.blobs["data"].data.ravel().tolist() == [0, 2, 0, 4, 0, 6, 0, 8]
    assert net.blobs["z"].data.ravel().tolist() == [0, 20, 0, 40, 0, 60, 0, 80]
    assert_exported_agrees(net)


def test_a_reader_whose_backward_meets_changed_numbers_is_not_exported_for_training():
    text = (
        COPY
        + layer("ip", "InnerProduct", "x", "s", "inner_product_param { num_output: 1 } loss_weight: 1")
        + layer("flat", "Flatten", "x", "y")
        + layer("relu", "ReLU", "y", "y")
    )
    net = ran(text, "TRAIN")
    net.backward()
    assert net.params["ip"][0].diff.ravel().tolist() == [0, 2, 0, 4, 0, 6, 0, 8]  # as in Caffe
    with pytest.raises(ExportError, match="layer 'ip'.* has read blob 'x' when .*'relu'.* changes it in place"):
        export(net, ExportOptions(training=True))
    export(net)


# --- running a part of the net


def test_a_blob_that_several_layers_read_is_written_for_all():
    net = ran(COPY + layer("a", "Power", "x", "ya", TIMES_10) + layer("b", "Power", "x", "yb"))
    net.blobs["x"].data[...] = 5
    out = net.forward(start="a")
    assert np.all(out["ya"] == 50) and np.all(out["yb"] == 5)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_write_into_a_top_is_one_into_the_bottom(alias):
    net = ran(COPY + layer("alias", alias, "x", "y", ALIASES[alias]) + layer("end", "Power", "y", "z", TIMES_10))
    net.blobs["x"].data[...] = 3
    assert np.all(net.forward(start="end")["z"] == 30)
    net.blobs["y"].data[...] = 4
    assert np.all(net.blobs["x"].data == 4)


def test_memory_is_shared_again_when_shapes_grow():
    net = ran(COPY + layer("flat", "Flatten", "x", "y") + layer("more", "Reshape", "x", "w", ALIASES["Reshape"]))
    net.blobs["data"].reshape(3, 2, 2, 2)
    net.blobs["data"].data[...] = 1
    net.forward()
    net.blobs["x"].data[...] = 7
    assert np.all(net.blobs["y"].data == 7) and np.all(net.blobs["w"].data == 7)
    assert net.blobs["y"].shape == net.blobs["w"].shape == (3, 8)


# --- Parameter

PARAMETER = layer("p", "Parameter", "", "w", "parameter_param { shape { dim: 2 dim: 3 } }")


def test_the_top_of_a_parameter_layer_is_its_learnable_blob():
    net = net_of(PARAMETER + layer("act", "TanH", "w", "y"))
    net.forward()
    net.blobs["w"].data[...] = 7
    assert np.all(net.params["p"][0].data == 7)
    net.params["p"][0].data[...] = 2
    assert np.all(net.blobs["w"].data == 2)


def test_the_gradient_of_a_parameter_layer_is_set_not_added_to():
    net = net_of(PARAMETER + layer("sum", "Reduction", "w", "s", "loss_weight: 1"), "TRAIN")
    for _ in range(2):
        net.forward()
        net.backward()
    assert np.all(net.params["p"][0].diff == 1)
    assert np.all(net.blobs["w"].diff == 1)


def test_a_parameter_changed_in_place_stays_changed():
    net = net_of(PARAMETER + layer("add", "Power", "w", "w", "power_param { shift: 1 }"))
    for _ in range(2):
        net.forward()
    assert np.all(net.params["p"][0].data == 2)


@pytest.mark.parametrize(("alias", "gradient"), [("Flatten", 0), ("Reshape", 1)])
def test_a_flatten_takes_the_diff_away_from_a_parameter_layer(alias, gradient):
    """The top of a ParameterLayer has its blob's diff, until the backward of a FlattenLayer gives it another."""
    text = PARAMETER + layer("alias", alias, "w", "v", ALIASES[alias])
    net = net_of(text + layer("s", "Reduction", "v", "s", "loss_weight: 1"), "TRAIN")
    (result,) = check(net)
    assert result.agrees
    assert np.all(net.params["p"][0].diff == gradient) and np.all(net.blobs["w"].diff == 1)


# --- Blob


def test_a_blob_keeps_its_memory_while_it_shrinks_and_grows():
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.diff[...] = 1
    blob.reshape(1, 3)
    assert blob.data.ravel().tolist() == [0, 1, 2] and blob.shape == (1, 3)
    blob.reshape(3, 2)
    assert blob.data.ravel().tolist() == [0, 1, 2, 3, 4, 5] and np.all(blob.diff == 1)
    blob.reshape(7)
    assert not np.any(blob.data) and not np.any(blob.diff)


@pytest.mark.parametrize("part", ["data", "diff"])
def test_the_arrays_of_a_blob_cannot_be_replaced(part):
    blob = Blob((2, 3))
    with pytest.raises(AttributeError, match=rf"write blob.{part}\[...\] = values"):
        setattr(blob, part, np.ones(5))
    assert blob.data.shape == blob.diff.shape == (2, 3) and blob.data.dtype == np.float32
