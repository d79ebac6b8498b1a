"""Layers that read data in Caffe: their tops are inputs here. And Parameter, whose top is its learnable blob."""

import numpy as np
import pytest

from caffe_tools.command_line.cli import main
from caffe_tools.errors import NetError
from nets import dims, inputs, layer, net_of
from one_layer import exported_tops


def shapes_of(type_, params, tops="data label", **keywords):
    net = net_of(layer("source", type_, "", tops, params), "TEST", **keywords)
    assert net.inputs == tops.split()
    return [net.blobs[top].shape for top in tops.split()]


@pytest.mark.parametrize(
    ("type_", "params", "shape"),
    [
        ("Data", "data_param { batch_size: 4 } transform_param { crop_size: 7 }", (4, 3, 7, 7)),
        ("Data", "data_param { batch_size: 4 } transform_param { crop_size: 7 force_gray: true }", (4, 1, 7, 7)),
        ("ImageData", "image_data_param { batch_size: 2 new_height: 5 new_width: 6 }", (2, 3, 5, 6)),
        ("ImageData", "image_data_param { new_height: 5 new_width: 6 is_color: false }", (1, 1, 5, 6)),
        (
            "ImageData",
            "image_data_param { new_height: 8 new_width: 9 is_color: false }"
            " transform_param { crop_size: 7 force_color: true }",
            (1, 3, 7, 7),
        ),
        ("WindowData", "window_data_param { batch_size: 2 } transform_param { crop_size: 9 }", (2, 3, 9, 9)),
        ("MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 4 width: 5 }", (2, 1, 4, 5)),
    ],
)
def test_a_data_layer_has_the_shapes_that_its_parameters_tell(type_, params, shape):
    assert shapes_of(type_, params) == [shape, shape[:1]]


def test_a_data_layer_may_have_no_labels():
    assert shapes_of("Data", "data_param { batch_size: 4 } transform_param { crop_size: 7 }", "data") == [(4, 3, 7, 7)]


def test_what_a_database_keeps_to_itself_must_be_told():
    params = 'data_param { source: "train_lmdb" batch_size: 4 }'
    with pytest.raises(NetError, match="does not tell the shape of its top 'data': feed the blob .*an Input layer"):
        shapes_of("Data", params)
    assert shapes_of("Data", params, input_shapes={"data": (4, 2, 3, 3)}) == [(4, 2, 3, 3), (4,)]


def test_the_arrays_of_hdf5_files_are_inputs_of_the_shapes_given():
    given = {"a": (2, 3), "b": (2,), "c": (2, 1, 4)}
    params = 'hdf5_data_param { source: "list.txt" batch_size: 2 }'
    assert shapes_of("HDF5Data", params, "a b c", input_shapes=given) == list(given.values())
    with pytest.raises(NetError, match="does not tell the shape of its top 'c'"):
        shapes_of("HDF5Data", params, "a b c", input_shapes={"a": (2, 3), "b": (2,)})


def test_annotated_data_knows_the_size_it_resizes_to_but_not_the_number_of_boxes():
    params = "data_param { batch_size: 2 } transform_param { resize_param { prob: 1 height: 30 width: 40 } }"
    assert shapes_of("AnnotatedData", params, input_shapes={"label": (1, 1, 5, 8)}) == [(2, 3, 30, 40), (1, 1, 5, 8)]
    with pytest.raises(NetError, match="does not tell the shape of its top 'label'"):
        shapes_of("AnnotatedData", params)


def test_a_layer_hands_on_its_transform_param_with_the_fields_of_forks():
    params = "memory_data_param { batch_size: 2 channels: 1 height: 4 width: 5 } transform_param { %s }"
    transform = "scale: 0.5 mean_value: 104 mean_value: 117 resize_param { prob: 1 }"
    net = net_of(layer("source", "MemoryData", "", "data label", params % transform), "TEST")
    images, labels = net.layers[0].sources
    assert images.transform == "scale: 0.5\nmean_value: 104\nmean_value: 117\nresize_param {\n  prob: 1\n}\n"
    assert labels.transform is None


def test_an_input_layer_hands_on_the_transform_param_that_caffe_ignores():
    params = f"input_param {{ shape {{ {dims((1, 1, 2, 2))} }} }} transform_param {{ scale: 0.5 }}"
    net = net_of(layer("source", "Input", "", "data", params), "TEST")
    assert net.layers[0].sources[0].transform == "scale: 0.5\n"
    assert net.forward(data=np.ones((1, 1, 2, 2)))["data"].max() == 1


def test_a_net_over_a_database_runs_and_learns():
    params = "data_param { batch_size: 2 } transform_param { crop_size: 3 }"
    text = layer("source", "Data", "", "data label", params)
    text += layer("ip", "InnerProduct", "data", "scores", "inner_product_param { num_output: 4 }")
    net = net_of(text + layer("loss", "SoftmaxWithLoss", "scores label", "loss"))
    net.forward(data=np.ones((2, 3, 3, 3)), label=[1, 2])
    net.backward()
    np.testing.assert_allclose(net.params["ip"][1].diff, [0.25, -0.25, -0.25, 0.25])


def test_the_command_line_takes_a_database_with_the_arrays_it_would_hold(tmp_path, capsys):
    net, arrays = tmp_path / "net.prototxt", tmp_path / "arrays.npz"
    net.write_text(layer("source", "Data", "", "data", "data_param { batch_size: 2 }") + layer("n", "LRN", "data", "y"))
    np.savez(arrays, **{"in/data": np.ones((3, 4, 5, 6))})
    assert main(["check", str(net)]) == 2
    assert "does not tell the shape of its top 'data'" in capsys.readouterr().err
    assert main(["check", str(net), "--inputs", str(arrays)]) == 0
    assert "3×4×5×6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("type_", "params", "message"),
    [
        ("Data", "transform_param { crop_size: 3 }", "batch_size is missing or 0"),
        ("MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 4 }", "give batch_size, channels"),
        ("ImageData", "image_data_param { new_height: 5 }", "give both new_height and new_width, or neither"),
        (
            "Data",
            "data_param { batch_size: 1 } transform_param { force_gray: true force_color: true }",
            "give force_color or force_gray, not both",
        ),
        ("Data", 'data_param { batch_size: "2" }', "batch_size is '2', but takes a value of type unsigned int"),
    ],
)
def test_parameters_that_caffe_refuses_are_refused(type_, params, message):
    with pytest.raises(NetError, match=message):
        shapes_of(type_, params)


def test_a_layer_that_writes_a_file_does_nothing():
    text = inputs(x=(2,), y=(2,)) + layer("out", "HDF5Output", "x y", "", 'hdf5_output_param { file_name: "f.h5" }')
    assert net_of(text + layer("abs", "AbsVal", "x", "z"), "TEST").forward(x=[-1, 2])["z"].tolist() == [1, 2]


# --- Parameter

SUM = layer("p", "Parameter", "", "p", "parameter_param { shape { dim: 2 dim: 3 } }") + layer(
    "sum", "Eltwise", "x p", "y"
)


def test_the_top_of_a_parameter_is_its_learnable_blob():
    net = net_of("force_backward: true " + inputs(x=(2, 3)) + SUM, "TEST")
    net.params["p"][0].data[...] = np.arange(6).reshape(2, 3)
    tops = net.forward(x=np.ones((2, 3)))
    np.testing.assert_array_equal(tops["y"], np.arange(1, 7).reshape(2, 3))
    for _ in range(2):
        net.backward(y=np.full((2, 3), 4))
    # its diff too: the reader sets it, and Parameter's own backward does nothing
    np.testing.assert_array_equal(net.params["p"][0].diff, np.full((2, 3), 4))


def test_a_parameter_is_exported_as_a_stored_tensor():
    net = net_of(inputs(x=(2, 3)) + SUM, "TEST")
    net.params["p"][0].data[...] = np.arange(6).reshape(2, 3)
    found = exported_tops(net, {"x": np.ones((2, 3))}, dynamic_batch=False)
    np.testing.assert_array_equal(found["y"], np.arange(1, 7).reshape(2, 3))


def test_a_parameter_without_axes_is_a_scalar_and_a_negative_dim_an_error():
    assert net_of(layer("p", "Parameter", "", "p"), "TEST").blobs["p"].shape == ()
    with pytest.raises(NetError, match="its shape -1×2 has a negative dim"):
        net_of(layer("p", "Parameter", "", "p", "parameter_param { shape { dim: -1 dim: 2 } }"), "TEST")
