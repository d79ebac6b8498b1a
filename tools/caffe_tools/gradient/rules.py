"""The table of gradient rules: one rule per ONNX op, filled by the files beside this one.

A rule takes the node's view and the index of the input whose diff is wanted. In its formulas x0, x1, … are the node's
inputs, y its (first) output and dy the diff of y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from caffe_tools.errors import GraphError
from caffe_tools.graph.builder import Builder

NOT_DIFFERENTIABLE = frozenset(
    "And ArgMax ArgMin Ceil ConstantOfShape Equal EyeLike Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual"
    " NonZero Not OneHot Or RandomNormalLike RandomUniformLike Range Round Shape Sign Size Xor".split()
)
"""Operators through which no gradient flows: their outputs are constant almost everywhere, or no floats."""


class NodeGradient:
    """What a rule sees of a node: its inputs ``x``, outputs ``y``, the diffs of the outputs and its attributes."""

    def __init__(self, op: Builder, node: ir.Node, output_diffs: list[ir.Value | None]) -> None:
        self.op = op
        self.node = node
        self.x: Sequence[Any] = node.inputs
        """None where an optional one is left out."""
        self.y = node.outputs
        self.output_diffs = output_diffs
        self.memo: dict[str, Any] = {}

    @property
    def dy(self) -> ir.Value:
        """The diff of the first output."""
        return diffs_or_zeros(self.op, self.output_diffs[:1], self.y[:1])[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def shape(self, index: int) -> tuple:
        return self.op.shape(self.x[index])

    def in_shape_of_input(self, value: ir.Value) -> ir.Value:
        """``value``, which has as many elements as the first input, in that one's shape."""
        result = self.op.Reshape(value, self.op.dims(self.x[0]))
        result.shape = ir.Shape(self.shape(0))
        return result

    def constant(self, index: int) -> np.ndarray | None:
        """The value of input ``index`` where it is a stored tensor, else None."""
        if index >= len(self.x) or self.x[index] is None:
            return None
        stored = self.x[index].const_value
        return None if stored is None else stored.numpy()

    def error(self, message: str) -> GraphError:
        layer = self.node.metadata_props.get("layer")
        where = f" of layer {layer!r}" if layer else ""
        return GraphError(f"no gradient for ONNX op {self.node.op_type}{where}: {message}")


Rule = Callable[[NodeGradient, int], "ir.Value | None"]
RULES: dict[str, Rule] = {}


def elementwise(op_type: str, *by_input: Callable[[NodeGradient], ir.Value] | None) -> None:
    """Register an elementwise operator: one function for each input, None for one without a gradient; the last function
    is that of all further inputs. Inputs may have been broadcast."""

    def rule(n: NodeGradient, index: int) -> ir.Value | None:
        by = by_input[min(index, len(by_input) - 1)]
        return by and sum_to_shape(n.op, by(n), n.x[index])

    RULES[op_type] = rule


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register ``function(n, index)`` as the rule of these operators."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[op_type] = function
        return function

    return register


def diffs_or_zeros(op: Builder, diffs: Iterable[ir.Value | None], values: Iterable[ir.Value]) -> list[ir.Value]:
    """The diffs of ``values``, zeros for those that no gradient reaches."""
    return [op.zeros(value) if diff is None else diff for diff, value in zip(diffs, values, strict=True)]


def sum_to_shape(op: Builder, diff: ir.Value, like: ir.Value) -> ir.Value:
    """``diff`` summed over the axes along which ``like`` was broadcast."""
    have, want = op.shape(diff), op.shape(like)
    if have == want:
        return diff
    added = len(have) - len(want)
    if added:
        diff = op.ReduceSum(diff, list(range(added)), keepdims=0)
    kept = have[added:]
    broadcast = [axis for axis, dim in enumerate(want) if dim == 1 and kept[axis] != 1]
    if broadcast:
        diff = op.ReduceSum(diff, broadcast, keepdims=1)
    unclear = [(h, w) for h, w in zip(kept, want, strict=True) if h != w and w != 1 and h != 1]
    if any(isinstance(w, str) for _, w in unclear):
        return _sum_to_dims_known_when_run(op, diff, like)
    return op.Expand(diff, op.dims(like)) if op.shape(diff) != want and not unclear else diff


def _sum_to_dims_known_when_run(op: Builder, diff: ir.Value, like: ir.Value) -> ir.Value:
    """As ``sum_to_shape`` where only the running graph knows which dims of ``like`` are 1."""
    shape = op.Shape(like)
    axes = op.Reshape(op.NonZero(op.Equal(shape, 1)), [-1])
    diff = op.ReduceSum(diff, axes, noop_with_empty_axes=1)
    diff.shape = ir.Shape(op.shape(like))
    return diff
