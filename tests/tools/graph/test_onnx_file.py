"""Models written with their weights straight from the arrays."""

import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes.common import CheckerPass

from caffe_tools.errors import ExportError
from caffe_tools.graph import onnx_file
from caffe_tools.graph.builder import Builder


def a_model(rows=300, columns=200):
    """y = x · w + b with a large w and a small b."""
    op = Builder()
    x = op.input("x", ["batch", rows])
    w = op.initializer("w", np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32))
    b = op.initializer("b", np.arange(columns, dtype=np.float32))
    op.output(op.Add(op.MatMul(x, w), b), "y")
    return ir.Model(op.graph, ir_version=10)


def run(path):
    x = np.ones((2, 300), np.float32)
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


def expected(model):
    stored = model.graph.initializers
    return np.ones((2, 300), np.float32) @ stored["w"].const_value.numpy() + stored["b"].const_value.numpy()


def test_the_file_is_the_same_model_as_protobuf_would_write(tmp_path):
    model = a_model()
    onnx_file.save(model, tmp_path / "m.onnx")
    read = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(read, full_check=True)
    wanted = ir.to_proto(model)
    assert {t.name for t in read.graph.initializer} == {"w", "b"}
    for tensor in wanted.graph.initializer:
        (found,) = (t for t in read.graph.initializer if t.name == tensor.name)
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), onnx.numpy_helper.to_array(tensor))
    assert list(read.graph.node) == list(wanted.graph.node)
    assert list(read.graph.input) == list(wanted.graph.input)
    assert list(read.graph.output) == list(wanted.graph.output)


def test_onnxruntime_runs_the_file(tmp_path):
    model = a_model()
    onnx_file.save(model, tmp_path / "m.onnx")
    np.testing.assert_allclose(run(tmp_path / "m.onnx"), expected(model), rtol=1e-5, atol=1e-4)


def test_a_model_too_large_for_one_file_keeps_its_tensors_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "EXTERNAL_FROM", 1000)
    model = a_model()
    onnx_file.save(model, tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    np.testing.assert_allclose(run(tmp_path / "m.onnx"), expected(model), rtol=1e-5, atol=1e-4)


def test_saving_leaves_the_model_whole(tmp_path):
    model = a_model()
    onnx_file.save(model, tmp_path / "m.onnx")
    assert set(model.graph.initializers) == {"w", "b"}


def test_saving_and_checking_copy_no_weights(tmp_path):
    model = a_model(2000, 1000)
    tracemalloc.start()
    CheckerPass(full_check=True)(model)
    onnx_file.save(model, tmp_path / "m.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * 2000 * 1000 * 4


def test_the_check_finds_an_invalid_model():
    op = Builder()
    x = op.input("x", [3])
    y = op.Relu(x)
    op.output(y, "y")
    y.shape = ir.Shape([4])
    with pytest.raises(onnx.shape_inference.InferenceError):
        CheckerPass(full_check=True)(ir.Model(op.graph, ir_version=10))


@pytest.mark.parametrize("where", ["missing/m.onnx", "."])
def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path, where):
    with pytest.raises(ExportError, match="cannot write"):
        onnx_file.save(a_model(), tmp_path / where)
    assert list(tmp_path.iterdir()) == []
