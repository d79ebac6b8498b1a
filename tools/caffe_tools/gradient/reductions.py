"""Gradients of the reductions, and of CumSum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.rules import RULES, NodeGradient, rule


def _reduced_axes(n: NodeGradient) -> list[int] | None:
    """The axes of a reduction; None where the graph computes them."""
    rank = len(n.shape(0))
    if len(n.x) > 1 and n.x[1] is not None:
        constant = n.constant(1)
        if constant is None:
            return None
        axes = [int(axis) % rank for axis in constant.reshape(-1)]
    else:
        axes = [int(axis) % rank for axis in n.attribute("axes", [])]
    if not axes and not n.attribute("noop_with_empty_axes", 0):
        axes = list(range(rank))
    return sorted(axes)


def _with_reduced_axes(n: NodeGradient, value: ir.Value) -> ir.Value:
    """``value`` of the reduction's output shape, with the reduced axes as dims of 1."""
    if n.attribute("keepdims", 1):
        return value
    axes = _reduced_axes(n)
    if axes is None:
        return n.op.Unsqueeze(value, n.x[1])
    return n.op.Unsqueeze(value, axes) if axes else value


def _spread(n: NodeGradient, value: ir.Value) -> ir.Value:
    """``value`` of the reduction's output shape, repeated to the shape of its input."""
    result = n.op.Expand(_with_reduced_axes(n, value), n.op.dims(n.x[0]))
    result.shape = ir.Shape(n.shape(0))
    return result


def _reduced_count(n: NodeGradient) -> ir.Value:
    axes = _reduced_axes(n)
    if axes is None:
        return n.op.Div(n.op.count(n.x[0]), n.op.count(n.y[0]))
    return n.op.count(n.x[0], axes)


def reduction(op_type: str, by: Callable[[NodeGradient], ir.Value]) -> None:
    """Register a reduction; ``by`` gives the diff of its input."""

    def reduce(n: NodeGradient, index: int) -> ir.Value:
        if index != 0:
            raise n.error("its axes have none")
        return by(n)

    RULES[op_type] = reduce


reduction("ReduceSum", lambda n: _spread(n, n.dy))
reduction("ReduceMean", lambda n: _spread(n, n.op.Div(n.dy, _reduced_count(n))))
reduction("ReduceSumSquare", lambda n: n.op.Mul(n.op.Mul(n.x[0], 2), _with_reduced_axes(n, n.dy)))
reduction("ReduceL1", lambda n: n.op.Mul(n.op.Sign(n.x[0]), _with_reduced_axes(n, n.dy)))
reduction("ReduceL2", lambda n: n.op.Mul(n.x[0], _with_reduced_axes(n, n.op.Div(n.dy, n.y[0]))))
reduction(
    "ReduceLogSumExp",
    lambda n: n.op.Mul(n.op.Exp(n.op.Sub(n.x[0], _with_reduced_axes(n, n.y[0]))), _with_reduced_axes(n, n.dy)),
)


def _reduce_extremum(n: NodeGradient) -> ir.Value:
    """dy shared evenly among the elements that attain the extremum."""
    op = n.op
    attained = op.cast(op.Equal(n.x[0], _with_reduced_axes(n, n.y[0])), n.x[0])
    axes = n.x[1] if len(n.x) > 1 else op.constant(_reduced_axes(n), np.int64)
    return op.Mul(attained, op.Div(_with_reduced_axes(n, n.dy), op.ReduceSum(attained, axes, keepdims=1)))


reduction("ReduceMax", _reduce_extremum)
reduction("ReduceMin", _reduce_extremum)


@rule("CumSum")
def cumulative_sum(n: NodeGradient, index: int) -> ir.Value:
    """The sum of dy from the other end."""
    if index != 0:
        raise n.error("its axis has none")
    return n.op.CumSum(n.dy, n.x[1], exclusive=n.attribute("exclusive", 0), reverse=1 - n.attribute("reverse", 0))
