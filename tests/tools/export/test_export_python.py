"""Python layers in an exported model: several tops, learnable blobs, and what their onnx() may do wrong."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import CaffeToolsError, ExportError, GraphError
from caffe_tools.export.export import ExportOptions, export
from exported_model import outputs_of, run_model
from nets import drawn_net, inputs, python

LAYERS = """
import caffe


class Plain(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        for blob in top:
            blob.data[...] = bottom[0].data
    def backward(self, top, propagate_down, bottom): pass


class TwoTops(Plain):
    def onnx(self, op, x): return op.Mul(x, 2.0), op.Mul(x, x)


class Scaled(Plain):
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = 2
    def onnx(self, op, x): return op.Mul(x, op.parameters[0])


class NoValue(Plain):
    def onnx(self, op, x): return 3


class OtherShape(Plain):
    def onnx(self, op, x): return op.Transpose(x)


class OtherType(Plain):
    def onnx(self, op, x): return op.cast(x, "float64")


class TupleAsInput(Plain):
    def onnx(self, op, x): return op.Neg((x, x))


class Hard(Plain):
    def onnx(self, op, x): return op.HardSwish(x)
"""


@pytest.fixture
def own_layers(tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda class_, tops="y": drawn_net(
        inputs(data=(2, 3)) + python("own", class_, "data", tops, module="own_layers"), allow_modules=["own_layers"]
    )


def test_a_python_layer_may_have_several_tops(own_layers):
    net = own_layers("TwoTops", "a b")
    results = run_model(export(net), net)
    np.testing.assert_allclose(results["a"], 2 * net.blobs["data"].data)
    np.testing.assert_allclose(results["b"], net.blobs["data"].data ** 2)


def test_a_python_layer_may_have_learnable_blobs(own_layers):
    net = own_layers("Scaled")
    exported = export(net, ExportOptions(training=True))
    assert outputs_of(exported) == ["y", "own/0.diff"]
    results = run_model(exported, net, **{"y.diff": np.ones((2, 3), np.float32)})
    np.testing.assert_allclose(results["y"], 2 * net.blobs["data"].data)
    np.testing.assert_allclose(results["own/0.diff"], net.blobs["data"].data.sum(0), rtol=1e-6)


@pytest.mark.parametrize(
    "class_, tops, message",
    [
        ("Plain", "y", r"Plain has no ONNX expression: give it onnx\(self, op, \*bottoms\)"),
        ("TwoTops", "y", r"TwoTops.onnx\(\) gives 2 tops, the net has 1"),
        ("NoValue", "y", r"NoValue.onnx\(\) gives a int, not a value as op.Relu\(x\) returns"),
        ("OtherShape", "y", r"gives top 'y' the shape \(3, 2\), its reshape\(\) \(2, 3\)"),
        ("OtherType", "y", r"gives top 'y' as DOUBLE, blobs are FLOAT"),
        ("TupleAsInput", "y", "Neg gets 2 values as one input"),
    ],
)
def test_what_a_python_layer_gives_wrongly_is_told_with_its_name(class_, tops, message, own_layers):
    with pytest.raises(CaffeToolsError, match=f"layer 'own' .*{message}"):
        export(own_layers(class_, tops))


def test_a_python_layer_without_tops_has_no_part_in_the_model(own_layers):
    exported = export(own_layers("Plain", ""))
    assert outputs_of(exported) == ["data@2"]


def test_a_training_export_names_the_layer_that_has_no_gradient(own_layers):
    with pytest.raises(GraphError, match="no gradient rule for ONNX op HardSwish of layer 'own'"):
        export(own_layers("Hard"), ExportOptions(training=True, input_gradients=True))


def test_all_python_layers_without_an_onnx_expression_are_listed(own_layers):
    net = own_layers("Plain")
    net.placed.append(net.placed[-1])
    with pytest.raises(ExportError, match=r"2 Python layers have no ONNX expression: 'own' \(Plain, .*\), 'own'"):
        export(net)
