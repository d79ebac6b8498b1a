"""A scan does what its steps do one after the other, and so does its gradient."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from caffe_tools.gradient import gradients
from caffe_tools.gradient.scan import scan
from caffe_tools.graph.builder import Builder

T = 4


def step(op, items, state, weights):
    (item, factor), (total, last), (weight,) = items, state, weights
    now = op.Tanh(op.Add(op.MatMul(total, weight), item))
    return op.Mul(now, factor), [op.Add(now, op.Mul(last, 0.5)), now]


def by_hand(item, factor, total, last, weight):
    """The outputs, and the state after the last step."""
    outputs = []
    for x, f in zip(item, factor, strict=True):
        now = np.tanh(total @ weight + x)
        total, last = now + last / 2, now
        outputs.append(now * f)
    return np.stack(outputs), total, last


def values(steps=T):
    random = np.random.default_rng(0)
    shapes = {"item": (steps, 2, 3), "factor": (steps, 2, 1), "total": (2, 3), "last": (2, 3), "weight": (3, 3)}
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def session_over(dims, seeds):
    """A session of the scan, over inputs of the shapes ``dims``; with the gradient of the tops that ``seeds`` names."""
    op = Builder(float_type=np.float64)
    inputs = {name: op.input(name, shape) for name, shape in dims.items()}
    item, factor, total, last, weight = inputs.values()
    output, after = scan(op, [item, factor], [total, last], [weight], step)
    tops = {"output": output, "total_after": after[0], "last_after": after[1]}
    for name, value in tops.items():
        op.output(value, name)
    if seeds:
        seed_values = {tops[name]: op.input(f"d{name}", op.shape(tops[name])) for name in seeds}
        wanted = [item, factor, weight]
        for name, diff in zip(("item", "factor", "weight"), gradients(op, seed_values, wanted), strict=True):
            op.output(diff, f"d{name}")
    model = ir.to_proto(ir.Model(op.graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_scan_is_its_steps_one_after_the_other(steps, is_open):
    feeds = values(steps)
    dims = {name: array.shape for name, array in feeds.items()}
    if is_open:
        dims |= {
            "item": ("steps", "rows", 3),
            "factor": ("steps", "rows", 1),
            "total": ("rows", 3),
            "last": ("rows", 3),
        }
    found = session_over(dims, ()).run(None, feeds)
    for have, want in zip(found, by_hand(**feeds), strict=True):
        np.testing.assert_allclose(have, want)


@pytest.mark.parametrize("seeds", [("output",), ("total_after",), ("output", "total_after", "last_after")])
def test_the_gradient_is_that_of_all_the_steps(seeds):
    feeds = values()
    session = session_over({name: array.shape for name, array in feeds.items()}, seeds)
    tops = dict(zip(("output", "total_after", "last_after"), by_hand(**feeds), strict=True))
    diffs = {name: np.random.default_rng(1).normal(size=tops[name].shape) for name in seeds}
    found = session.run(["ditem", "dfactor", "dweight"], feeds | {f"d{name}": diff for name, diff in diffs.items()})

    def objective():
        now = dict(zip(tops, by_hand(**feeds), strict=True))
        return sum((now[name] * diffs[name]).sum() for name in seeds)

    for name, diff in zip(("item", "factor", "weight"), found, strict=True):
        for index in np.ndindex(*feeds[name].shape):
            kept = feeds[name][index]
            feeds[name][index] = kept + 1e-6
            high = objective()
            feeds[name][index] = kept - 1e-6
            low = objective()
            feeds[name][index] = kept
            assert diff[index] == pytest.approx((high - low) / 2e-6, rel=1e-6, abs=1e-8)
