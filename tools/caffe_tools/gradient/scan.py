"""A step repeated along the first axis of some sequences, as ONNX's Scan, with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from caffe_tools.gradient import gradients
from caffe_tools.gradient.rules import diffs_or_zeros
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import dtype_of

Values = Sequence[ir.Value]
Step = Callable[[Builder, Values, Values, Values], tuple[ir.Value, Values]]
"""``output, state = step(op, items, state, weights)``; it may use no other values than those that it is handed."""


def scan(op: Builder, sequences: Values, state: Values, weights: Values, step: Step) -> tuple[ir.Value, Values]:
    """The outputs of all steps as one value T × …, and the state after the last.

    ``sequences`` are T × …, and each step gets an item of each; dtypes and shapes of the state stay the same. The
    gradient goes to the sequences and the weights; none goes to the state before the first step.
    """
    scanned = _Scan(op, sequences, state, weights, step)
    output, after = scanned.forward()
    op.define_gradient([output, *after], [*sequences, *weights], scanned.backward)
    return output, after


@dataclass
class _Scan:
    """One scan: its forward node, and in ``backward`` the nodes of its gradient."""

    op: Builder
    sequences: Values
    state: Values
    weights: Values
    step: Step

    def forward(self) -> tuple[ir.Value, Values]:
        after, (output,) = self._steps(collect_states=False)
        return output, after

    def _steps(self, collect_states: bool) -> tuple[Values, Values]:
        """The state after all steps, and as sequences the state before each step or else the output of each."""
        inner = self.op.inner("step")
        state, weights = _inputs(inner, self.state), _inputs(inner, self.weights)
        output, after = self.step(inner, _items(inner, self.sequences), state, weights)
        collected = state if collect_states else [output]
        # the weights go round with the state, so that the node's inputs say all that it depends on
        results = self._node(inner, [*self.state, *self.weights], self.sequences, [*after, *weights], collected)
        return results[: len(state)], results[-len(collected) :]

    def backward(self, output_diff: ir.Value | None, *state_diffs: ir.Value | None) -> list[ir.Value | None]:
        """The diffs of the sequences and the weights: from the last step to the first, each is run again from the
        state that it began with."""
        op, (_, before) = self.op, self._steps(collect_states=True)
        carried = [*diffs_or_zeros(op, state_diffs, self.state), *(op.zeros(weight) for weight in self.weights)]
        sequences = [*self.sequences, *before, *([] if output_diff is None else [output_diff])]
        inner = op.inner("gradient")
        diffs_after, sums, weights = (_inputs(inner, part) for part in (self.state, self.weights, self.weights))
        items, state, output_diffs = _parts(_items(inner, sequences), len(self.sequences), len(before))
        output, after = self.step(inner, items, state, weights)
        seeds = dict(zip(after, diffs_after, strict=True))
        for diff in output_diffs:
            seeds[output] = inner.Add(seeds[output], diff) if output in seeds else diff
        by = [*state, *weights, *items]
        found = diffs_or_zeros(inner, gradients(inner, seeds, by), by)
        to_state, to_weights, to_items = _parts(found, len(state), len(weights))
        sums = [inner.Add(total, diff) for total, diff in zip(sums, to_weights, strict=True)]
        results = self._node(
            inner, [*carried, *self.weights], sequences, [*to_state, *sums, *weights], to_items, backwards=True
        )
        _, weight_diffs, _, item_diffs = _parts(results, len(state), len(weights), len(weights))
        return [*item_diffs, *weight_diffs]

    def _node(
        self,
        inner: Builder,
        carried: Values,
        sequences: Values,
        after: Values,
        outputs: Values,
        backwards: bool = False,
    ) -> Values:
        for value in (*after, *outputs):
            inner.graph.outputs.append(inner.Identity(value))
        results = self.op.Scan(
            *carried,
            *sequences,
            outputs=len(after) + len(outputs),
            num_scan_inputs=len(sequences),
            scan_input_directions=[1] * len(sequences) if backwards else None,
            scan_output_directions=[1] * len(outputs) if backwards else None,
            body=inner.graph,
        )
        results = results if isinstance(results, tuple) else (results,)
        steps = self.op.shape(sequences[0])[0]
        for result, value in zip(results, carried, strict=False):
            result.shape = ir.Shape(self.op.shape(value))
        for result, value in zip(results[len(carried) :], outputs, strict=True):
            result.shape = ir.Shape([steps, *inner.shape(value)])
        return results


def _inputs(inner: Builder, values: Values) -> Values:
    return [inner.input("carried", inner.shape(value), dtype_of(value)) for value in values]


def _items(inner: Builder, sequences: Values) -> Values:
    return [inner.input("item", inner.shape(value)[1:], dtype_of(value)) for value in sequences]


def _parts(values: Values, *sizes: int) -> list[Values]:
    """``values`` cut into parts of these sizes, and what is left."""
    parts, start = [], 0
    for size in sizes:
        parts.append(values[start : start + size])
        start += size
    return [*parts, values[start:]]
