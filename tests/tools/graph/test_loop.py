"""Loops in a graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from caffe_tools.graph.builder import Builder
from caffe_tools.graph.loop import loop
from caffe_tools.graph.session import IR_VERSION, make_session


def powers(count: int, repeat: int = 1) -> tuple[Builder, onnx.ModelProto]:
    """x → factor^count · x and the number of the last step, ``repeat`` times over."""
    op = Builder()
    x, factor = op.input("x", ["n", 2]), op.input("factor", [2])
    last = op.constant(-1)
    for _ in range(repeat):
        x, last = loop(
            op,
            op.constant(count),
            [x, last],
            [factor],
            lambda op, step, state, constants: [op.Mul(state[0], constants[0]), op.Identity(step)],
        )
    op.output(x, "y")
    op.output(last, "last")
    return op, ir.to_proto(ir.Model(op.graph, ir_version=IR_VERSION))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_state_goes_through_the_body_as_often_as_the_count_says(count):
    op, _ = powers(count)
    x, factor = np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([2, -1], np.float32)
    y, last = make_session(op.graph).run(None, {"x": x, "factor": factor})
    np.testing.assert_array_equal(y, x * factor**count)
    assert last == count - 1


def test_loops_stand_side_by_side_under_names_of_their_own():
    op, model = powers(2, repeat=2)
    onnx.checker.check_model(model, full_check=True)
    y, _ = make_session(op.graph).run(None, {"x": np.ones((1, 2), np.float32), "factor": np.float32([3, 2])})
    np.testing.assert_array_equal(y, [[81, 16]])


def test_the_state_keeps_its_shape_symbols_included():
    op = Builder()
    x = op.input("x", ["n", 2])
    (y,) = loop(op, op.constant(3), [x], [], lambda op, step, state, constants: [op.Neg(state[0])])
    assert op.shape(y) == ("n", 2)
