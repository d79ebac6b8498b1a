"""Every gradient rule against central differences in float64, in ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from caffe_tools.errors import GraphError
from caffe_tools.gradient import RULES, gradients, linear
from caffe_tools.graph.builder import Builder
from graph_steps import SHAPES, STEPS

CASES = {
    "Add": (lambda op, a, b: op.Add(a, b), [(2, 3, 4), (3, 1)]),
    "Sum": (lambda op, a, b, c: op.Sum(a, b, c), [(2, 3), (3,), (2, 1)]),
    "Sub": (lambda op, a, b: op.Sub(a, b), [(3, 4), (2, 3, 4)]),
    "Mul": (lambda op, a, b: op.Mul(a, b), [(2, 3), (1, 3)]),
    "Mul of a value by itself": (lambda op, a: op.Mul(a, a), [(2, 3)]),
    "Div": (lambda op, a, b: op.Div(a, op.Add(op.Mul(b, b), 1)), [(2, 3), (3,)]),
    "Neg": (lambda op, a: op.Neg(a), [(3,)]),
    "Identity": (lambda op, a: op.Identity(a), [(3,)]),
    "Abs": (lambda op, a: op.Abs(a), [(5,)]),
    "Reciprocal": (lambda op, a: op.Reciprocal(op.Add(op.Mul(a, a), 1)), [(5,)]),
    "Sqrt": (lambda op, a: op.Sqrt(op.Add(op.Mul(a, a), 1)), [(5,)]),
    "Exp": (lambda op, a: op.Exp(a), [(5,)]),
    "Log": (lambda op, a: op.Log(op.Add(op.Mul(a, a), 1)), [(5,)]),
    "Sin": (lambda op, a: op.Sin(a), [(5,)]),
    "Cos": (lambda op, a: op.Cos(a), [(5,)]),
    "Erf": (lambda op, a: op.Erf(a), [(4,)]),
    "Pow to 3": (lambda op, a: op.Pow(a, 3.0), [(5,)]),
    "Pow to 2.5": (lambda op, a: op.Pow(op.Exp(a), 2.5), [(5,)]),
    "Pow of two values": (lambda op, a, b: op.Pow(op.Exp(a), b), [(2, 3), (3,)]),
    "Sigmoid": (lambda op, a: op.Sigmoid(a), [(5,)]),
    "Tanh": (lambda op, a: op.Tanh(a), [(5,)]),
    "Relu": (lambda op, a: op.Relu(a), [(5,)]),
    "Softplus": (lambda op, a: op.Softplus(a), [(4,)]),
    "LeakyRelu": (lambda op, a: op.LeakyRelu(a, alpha=0.3), [(5,)]),
    "PRelu": (lambda op, a, b: op.PRelu(a, b), [(2, 3, 2), (3, 1)]),
    "Elu": (lambda op, a: op.Elu(a, alpha=1.5), [(5,)]),
    "Clip": (lambda op, a: op.Clip(a, -0.5, 0.5), [(9,)]),
    "Where": (lambda op, a, b: op.Where(op.Greater(a, 0), op.Mul(a, 2), b), [(2, 3), (3,)]),
    "Max": (lambda op, a, b, c: op.Max(a, b, c), [(2, 3), (2, 3), (3,)]),
    "Min": (lambda op, a, b: op.Min(a, b), [(2, 3), (3,)]),
    "Cast": (lambda op, a: op.Mul(op.cast(a, "float32"), 3), [(3,)]),
    "Softmax": (lambda op, a: op.Softmax(a, axis=1), [(2, 4, 3)]),
    "LogSoftmax": (lambda op, a: op.LogSoftmax(a, axis=-1), [(2, 4)]),
    "ReduceSum over all": (lambda op, a: op.ReduceSum(a, keepdims=0), [(2, 3)]),
    "ReduceSum": (lambda op, a: op.ReduceSum(a, [-1], keepdims=0), [(2, 3, 4)]),
    "ReduceMean": (lambda op, a: op.ReduceMean(a, [0, 2], keepdims=1), [(2, 3, 4)]),
    "ReduceSumSquare": (lambda op, a: op.ReduceSumSquare(a, [1], keepdims=0), [(2, 3)]),
    "ReduceL1": (lambda op, a: op.ReduceL1(a, [1], keepdims=0), [(2, 3)]),
    "ReduceL2": (lambda op, a: op.ReduceL2(a, [1], keepdims=0), [(2, 3)]),
    "ReduceLogSumExp": (lambda op, a: op.ReduceLogSumExp(a, [1], keepdims=1), [(2, 3)]),
    "ReduceMax": (lambda op, a: op.ReduceMax(a, [1], keepdims=0), [(3, 4)]),
    "ReduceMin": (lambda op, a: op.ReduceMin(a, keepdims=0), [(3, 4)]),
    "CumSum": (lambda op, a: op.CumSum(a, 1), [(2, 4)]),
    "CumSum, exclusive and from the end": (lambda op, a: op.CumSum(a, 0, exclusive=1, reverse=1), [(4, 2)]),
    "MatMul": (lambda op, a, b: op.MatMul(a, b), [(2, 3), (3, 4)]),
    "MatMul in batches": (lambda op, a, b: op.MatMul(a, b), [(5, 2, 3), (3, 4)]),
    "MatMul of vectors": (lambda op, a, b: op.MatMul(a, b), [(3,), (3,)]),
    "MatMul with a vector": (lambda op, a, b: op.MatMul(a, b), [(2, 4, 3), (3,)]),
    "Gemm": (lambda op, a, b, c: op.Gemm(a, b, c, alpha=0.5, beta=2.0), [(2, 3), (3, 4), (4,)]),
    "Gemm transposed": (lambda op, a, b, c: op.Gemm(a, b, c, transA=1, transB=1), [(3, 2), (4, 3), (2, 1)]),
    "Conv": (
        lambda op, x, w, b: op.Conv(x, w, b, strides=[2, 2], pads=[1, 0, 2, 1]),
        [(2, 3, 8, 7), (4, 3, 3, 2), (4,)],
    ),
    "Conv in groups, dilated": (
        lambda op, x, w: op.Conv(x, w, group=2, dilations=[2, 1], strides=[1, 3], pads=[1, 1, 1, 1]),
        [(2, 4, 6, 9), (6, 2, 3, 3)],
    ),
    "Conv in one dimension": (lambda op, x, w: op.Conv(x, w, strides=[3]), [(2, 2, 9), (3, 2, 2)]),
    "Conv of many channels, dilated": (
        lambda op, x, w: op.Conv(x, w, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 1]),
        [(2, 8, 4, 6), (3, 8, 3, 2)],
    ),
    "Conv of many channels in one dimension": (lambda op, x, w: op.Conv(x, w, strides=[2]), [(2, 9, 6), (3, 9, 3)]),
    "Conv of many channels in three dimensions": (
        lambda op, x, w: op.Conv(x, w, pads=[0, 1, 0, 0, 0, 1], strides=[1, 2, 1]),
        [(1, 8, 2, 3, 3), (2, 8, 2, 2, 1)],
    ),
    "ConvTranspose": (
        lambda op, x, w, b: op.ConvTranspose(x, w, b, strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]),
        [(2, 4, 3, 4), (4, 2, 3, 3), (2,)],
    ),
    "ConvTranspose in groups": (
        lambda op, x, w: op.ConvTranspose(x, w, group=2, dilations=[1, 2], strides=[2, 2]),
        [(2, 4, 3, 2), (4, 3, 2, 2)],
    ),
    "ConvTranspose to many channels": (
        lambda op, x, w: op.ConvTranspose(x, w, strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]),
        [(2, 3, 3, 2), (3, 8, 3, 3)],
    ),
    "BatchNormalization": (
        lambda op, x, s, b, m, v: op.BatchNormalization(x, s, b, m, op.Exp(v), epsilon=1e-3),
        [(2, 3, 2, 2), (3,), (3,), (3,), (3,)],
    ),
    "MaxPool": (lambda op, x: op.MaxPool(x, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]), [(2, 2, 5, 6)]),
    "AveragePool": (
        lambda op, x: op.AveragePool(x, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1),
        [(2, 2, 6, 6)],
    ),
    "GlobalAveragePool": (lambda op, x: op.GlobalAveragePool(x), [(2, 2, 3, 4)]),
    "GlobalMaxPool": (lambda op, x: op.GlobalMaxPool(x), [(2, 2, 3, 4)]),
    "LRN": (lambda op, x: op.LRN(x, size=3, alpha=0.5, beta=0.6, bias=2.0), [(2, 5, 2, 3)]),
    "Reshape": (lambda op, x: op.Reshape(x, [4, -1]), [(2, 2, 3)]),
    "Flatten": (lambda op, x: op.Flatten(x, axis=2), [(2, 2, 3)]),
    "Squeeze": (lambda op, x: op.Squeeze(x, [1]), [(2, 1, 3)]),
    "Unsqueeze": (lambda op, x: op.Unsqueeze(x, [0, 2]), [(2, 3)]),
    "Transpose": (lambda op, x: op.Transpose(x, perm=[2, 0, 1]), [(2, 3, 4)]),
    "SpaceToDepth": (lambda op, x: op.SpaceToDepth(x, blocksize=2), [(1, 2, 4, 2)]),
    "DepthToSpace": (lambda op, x: op.DepthToSpace(x, blocksize=2), [(1, 8, 1, 3)]),
    "Expand": (lambda op, x: op.Expand(x, [4, 2, 3]), [(2, 1)]),
    "Tile": (lambda op, x: op.Tile(x, [2, 3]), [(2, 3)]),
    "Concat": (lambda op, a, b: op.Concat(a, b, a, axis=1), [(2, 3), (2, 1)]),
    "Split": (lambda op, x: op.Split(x, [1, 2, 1], axis=1, outputs=3)[1], [(2, 4)]),
    "Slice": (lambda op, x: op.Slice(x, [1, -3], [3, 100], [0, 1]), [(4, 5)]),
    "Slice with steps": (lambda op, x: op.Slice(x, [3, 0], [0, 5], [0, 1], [-2, 2]), [(4, 5)]),
    "Pad": (lambda op, x: op.Pad(x, [1, 0, 0, 2], 3.0), [(2, 3)]),
    "Gather": (lambda op, x: op.Gather(x, [[2, 0], [2, 2]], axis=1), [(2, 3, 2)]),
    "GatherElements": (lambda op, x: op.GatherElements(x, [[0, 0], [2, 1]], axis=1), [(2, 3)]),
    "GatherND": (lambda op, x: op.GatherND(x, [[1, 2], [0, 0], [1, 2]]), [(2, 3, 2)]),
    "ScatterElements": (lambda op, x, u: op.ScatterElements(x, [[0, 2], [1, 0]], u, axis=1), [(2, 3), (2, 2)]),
    "ScatterElements, adding": (
        lambda op, x, u: op.ScatterElements(x, [[0, 0], [1, 1]], u, axis=1, reduction="add"),
        [(2, 3), (2, 2)],
    ),
    "Dropout": (lambda op, x: op.Dropout(x), [(3,)]),
}


def rule_of(case):
    return case.split()[0].rstrip(",")


for name in sorted(RULES.keys() - set(map(rule_of, CASES))):
    shape = next(shape for shape in SHAPES if STEPS[name].fits(shape))
    CASES[name] = (STEPS[name].onnx, [shape, *STEPS[name].more(shape)])


def build(name, shapes, symbolic_batch=False, dtype=np.float64):
    """A session of the case and of the gradient of Σ seed · y by each input; the shape of y; the dtypes of x and y.

    What ONNX Runtime has in float32 alone is linear, or so smooth that a long step does no harm.
    """
    function = CASES[name][0]
    static = Builder(float_type=dtype)
    y_shape = static.shape(function(static, *(static.input(f"x{i}", shape) for i, shape in enumerate(shapes))))
    op = Builder(float_type=dtype)
    inputs = []
    for index, shape in enumerate(shapes):
        shape = ("batch", *shape[1:]) if symbolic_batch and index == 0 else shape
        inputs.append(op.input(f"x{index}", shape))
    y = function(op, *inputs)
    op.output(y, "y")
    seed = op.input("seed", op.shape(y), y.dtype.numpy())
    for index, diff in enumerate(gradients(op, {y: seed}, inputs)):
        op.output(diff, f"dx{index}")
    model = ir.to_proto(ir.Model(op.graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString()), y_shape, dtype, y.dtype.numpy()
    except NotImplemented:
        if dtype == np.float32:
            raise
        return build(name, shapes, symbolic_batch, np.float32)


def check_against_differences(name, shapes, symbolic_batch=False):
    session, y_shape, dtype, y_dtype = build(name, shapes, symbolic_batch)
    random = np.random.default_rng(3)
    feeds = {f"x{i}": random.normal(size=shape).astype(dtype) for i, shape in enumerate(shapes)}
    feeds["seed"] = random.normal(size=y_shape).astype(y_dtype)
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    single = np.float32 in (dtype, y_dtype)
    step, tolerance = (2e-2, 2e-3) if single else (1e-6, 1e-7)

    def loss(values):
        return float(np.sum(session.run(["y"], values)[0].astype(np.float64) * feeds["seed"]))

    for index, shape in enumerate(shapes):
        derived = outputs[f"dx{index}"]
        assert derived.shape == tuple(shape)
        for element in range(derived.size):
            values = []
            for sign in (1, -1):
                moved = {**feeds, f"x{index}": feeds[f"x{index}"].copy()}
                moved[f"x{index}"].reshape(-1)[element] += sign * step
                values.append(loss(moved))
            numeric = (values[0] - values[1]) / (2 * step)
            assert derived.reshape(-1)[element] == pytest.approx(numeric, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_the_rule_agrees_with_central_differences(name):
    check_against_differences(name, CASES[name][1])


BATCH_WISE = [
    "Mul",
    "Softmax",
    "ReduceSum",
    "ReduceMean",
    "MatMul",
    "Gemm",
    "Conv",
    "Conv in groups, dilated",
    "Conv of many channels, dilated",
    "ConvTranspose",
    "ConvTranspose in groups",
    "ConvTranspose to many channels",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
    "Squeeze",
    "Transpose",
    "Split",
    "Slice with steps",
    "GatherND",
]


@pytest.mark.parametrize("name", BATCH_WISE)
def test_the_rule_works_with_a_symbolic_batch(name):
    check_against_differences(name, CASES[name][1], symbolic_batch=True)


def test_the_windows_of_large_images_are_not_laid_side_by_side(monkeypatch):
    monkeypatch.setattr(linear, "MOST_GATHERED", 100)
    check_against_differences("Conv of many channels, dilated", [(2, 8, 4, 6), (3, 8, 3, 2)])
    op = Builder()
    x, w = op.input("x", (2, 8, 4, 6)), op.input("w", (3, 8, 3, 2))
    y = op.Conv(x, w)
    gradients(op, {y: op.input("dy", op.shape(y))}, [w])
    assert "Gather" not in {node.op_type for node in op.graph}


def test_every_case_is_that_of_a_rule():
    assert set(map(rule_of, CASES)) == set(RULES)


def test_an_op_without_a_rule_is_named_with_its_layer():
    op = Builder()
    x = op.input("x", [3])
    with op.layer("hard"):
        y = op.HardSwish(x)
    with pytest.raises(GraphError, match="no gradient rule for ONNX op HardSwish of layer 'hard'"):
        gradients(op, {y: op.constant(np.ones(3))}, [x])


def test_no_gradient_flows_through_comparisons_and_integers():
    op = Builder()
    x = op.input("x", [3])
    y = op.cast(op.Greater(x, 0), x)
    assert gradients(op, {y: op.constant(np.ones(3))}, [x]) == [None]


def test_a_defined_gradient_stands_for_the_nodes_between_its_bottoms_and_tops():
    op = Builder()
    x = op.input("x", [3])
    y = op.Exp(op.Mul(x, 2))
    op.define_gradient([y], [x], lambda dy: [op.Mul(dy, 7)])
    op.output(op.Add(y, x), "z")
    (diff,) = gradients(op, {op.graph.outputs[0]: op.constant(np.ones(3))}, [x])
    op.output(diff, "dx")
    session = onnxruntime.InferenceSession(ir.to_proto(ir.Model(op.graph, ir_version=10)).SerializeToString())
    np.testing.assert_array_equal(session.run(["dx"], {"x": np.ones(3, np.float32)})[0], np.full(3, 8))
