"""The exported model as a file: opsets, the open batch, and how it is written."""

from __future__ import annotations

import stat

import numpy as np
import onnx
import pytest

from caffe_tools.errors import CaffeToolsError, ExportError
from caffe_tools.export.export import ExportOptions, export, save
from caffe_tools.graph import onnx_file
from caffe_tools.graph.session import newest_opset
from exported_model import run_model, shape_of
from nets import convolution, drawn_net, inner_product, inputs, layer, python

# Opsets --------------------------------------------------------------------------------------------------------------

EVERYTHING = (
    inputs(data=(4, 2, 9, 8), label=(4,))
    + convolution("conv", "data", "conv")
    + layer("norm", "BatchNorm", "conv", "conv")
    + layer("max", "Pooling", "conv", "max", "pooling_param { kernel_size: 2 stride: 2 }")
    + layer("mean", "Pooling", "max", "mean", "pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }")
    + inner_product("ip", "mean", "score", outputs=5)
    + python("loss", "SoftmaxFocalLossLayer", "score label", "loss probability").replace(
        "loss_weight: 1", "loss_weight: 1 loss_weight: 0"
    )
)


def results_of(opset, **options):
    net = drawn_net(EVERYTHING)
    exported = export(net, ExportOptions(training=True, opset=opset, **options))
    assert {entry.domain: entry.version for entry in exported.model.opset_import}[""] == opset
    return run_model(exported, net)


def test_every_opset_from_18_to_the_newest_gives_the_same_numbers():
    expected = results_of(18)
    assert newest_opset() > 18
    for opset in range(19, newest_opset() + 1):
        found = results_of(opset)
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=f"{name}, opset {opset}")


@pytest.mark.parametrize("opset", [-1, 0, 17, newest_opset() + 1, 1000])
def test_another_opset_is_refused_with_those_that_are_supported(opset):
    with pytest.raises(ExportError, match=f"^opset {opset} is not supported: give 18 to {newest_opset()}, the newest"):
        export(drawn_net(EVERYTHING), ExportOptions(opset=opset))


def test_the_ir_version_is_one_that_may_hold_the_opset():
    for opset in (18, newest_opset()):
        version = export(drawn_net(EVERYTHING), ExportOptions(opset=opset)).model.ir_version
        assert version >= max(10, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


# Batch ---------------------------------------------------------------------------------------------------------------


def test_with_dynamic_batch_the_inputs_that_share_the_first_dim_have_it_open():
    text = inputs(data=(4, 5), label=(4,), rows=(7, 5)) + inner_product("ip", "data", "score")
    text += layer("loss", "SoftmaxWithLoss", "score label", "loss") + layer("relu", "ReLU", "rows", "out")
    exported = export(drawn_net(text), ExportOptions(dynamic_batch=True))
    shapes = {value.name: shape_of(value) for value in exported.model.graph.input}
    assert shapes == {"data": ["batch", 5], "label": ["batch"], "rows": [7, 5]}


def image_and_regions(images, regions):
    """Regions of a map that comes of the image through values of the shapes that those of the regions get."""
    text = inputs(image=(images, 3, 2, 2), rois=(regions, 5))
    text += inner_product("small", "image", "small") + layer("squash", "TanH", "small", "squash")
    text += inner_product("large", "squash", "large", outputs=12)
    text += layer("map", "Reshape", "large", "map", "reshape_param { shape { dim: 0 dim: 3 dim: 2 dim: 2 } }")
    text += layer("pool", "ROIPooling", "map rois", "pool", "roi_pooling_param { pooled_h: 2 pooled_w: 2 }")
    text += inner_product("ip", "pool", "hidden") + layer("tanh", "TanH", "hidden", "tanh")
    return text + inner_product("score", "tanh", "score")


@pytest.mark.parametrize("images, regions", [(1, 1), (1, 5), (3, 7)])
def test_an_open_batch_has_as_many_regions_as_there_are(images, regions):
    exported = export(drawn_net(image_and_regions(1, 1), "TEST"), ExportOptions(dynamic_batch=True))
    shapes = {value.name: shape_of(value) for value in exported.model.graph.input}
    assert shapes == {"image": ["batch", 3, 2, 2], "rois": ["regions", 5]}
    net = drawn_net(image_and_regions(images, regions), "TEST")  # its weights are the same, drawn with one seed
    random = np.random.default_rng(0)
    net.blobs["image"].data[...] = random.normal(size=(images, 3, 2, 2))
    net.blobs["rois"].data[...] = [(random.integers(images), 0, 0, 1, 1) for _ in range(regions)]
    found = run_model(exported, net)["score"]
    np.testing.assert_allclose(found, net.forward()["score"], rtol=1e-5, atol=1e-6)


def test_the_labels_of_regions_are_as_many_as_those():
    text = image_and_regions(2, 6) + inputs(label=(6,), weather=(2,))
    text += layer("loss", "SoftmaxWithLoss", "score label", "loss") + layer("relu", "ReLU", "weather", "out")
    exported = export(drawn_net(text), ExportOptions(training=True, dynamic_batch=True))
    shapes = {value.name: shape_of(value) for value in exported.model.graph.input}
    assert shapes == {"image": ["batch", 3, 2, 2], "rois": ["regions", 5], "label": ["regions"], "weather": ["batch"]}


def test_without_it_every_dim_is_a_number():
    exported = export(drawn_net(EVERYTHING), ExportOptions(training=True))
    for value in [*exported.model.graph.input, *exported.model.graph.output]:
        assert all(isinstance(dim, int) for dim in shape_of(value))


def test_the_diffs_of_the_inputs_have_the_open_batch_too():
    options = ExportOptions(training=True, input_gradients=True, dynamic_batch=True)
    exported = export(drawn_net(EVERYTHING), options)
    shapes = {value.name: shape_of(value) for value in exported.model.graph.output}
    assert shapes["data.diff"] == ["batch", 2, 9, 8]


# Writing -------------------------------------------------------------------------------------------------------------


def test_a_written_model_is_the_exported_one(tmp_path):
    exported = export(drawn_net(EVERYTHING), ExportOptions(training=True))
    save(exported, tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx") == exported.model
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_written_model_can_be_read_by_those_who_may_read_other_new_files(tmp_path):
    (tmp_path / "other").touch()
    save(export(drawn_net(EVERYTHING)), tmp_path / "model.onnx")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    old = tmp_path / "model.onnx"
    old.write_bytes(b"old")

    def write_half(proto, large, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_file, "_write_one_file", write_half)
    with pytest.raises(CaffeToolsError, match="cannot write .*model.onnx: No space left on device"):
        save(export(drawn_net(EVERYTHING)), old)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize("place, reason", [("no/model.onnx", "there is no such folder"), (".", "a directory")])
def test_a_place_that_cannot_be_written_is_named(place, reason, tmp_path):
    with pytest.raises(CaffeToolsError, match=f"(?i)cannot write .*: .*{reason}"):
        save(export(drawn_net(EVERYTHING)), tmp_path / place)
