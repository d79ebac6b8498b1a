"""A step repeated along the first axis of some sequences, as ONNX's Scan, with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from caffe_tools.gradient import gradients
from caffe_tools.graph.builder import Builder

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
        inner, state, weights = self._inner()
        output, after = self.step(inner, _items(inner, self.sequences), state, weights)
        # the weights go round with the state, so that the node's inputs say all that it depends on
        results = self._node(inner, [*self.state, *self.weights], self.sequences, [*after, *weights], [output])
        return results[-1], results[: len(state)]

    def _states_before(self) -> Values:
        """The state before each step, as sequences."""
        inner, state, weights = self._inner()
        _, after = self.step(inner, _items(inner, self.sequences), state, weights)
        results = self._node(inner, [*self.state, *self.weights], self.sequences, [*after, *weights], state)
        return results[-len(state) :]

    def _inner(self) -> tuple[Builder, Values, Values]:
        inner = self.op.inner("step")
        return inner, _inputs(inner, self.state), _inputs(inner, self.weights)

    def backward(self, output_diff: ir.Value | None, *state_diffs: ir.Value | None) -> list[ir.Value | None]:
        """The diffs of the sequences and the weights: from the last step to the first, each is run again from the
        state that it began with."""
        op, before = self.op, self._states_before()
        carried = [op.zeros(s) if diff is None else diff for s, diff in zip(self.state, state_diffs, strict=True)]
        carried += [op.zeros(weight) for weight in self.weights]
        sequences = [*self.sequences, *before, *([] if output_diff is None else [output_diff])]
        inner = op.inner("gradient")
        state_diffs, sums, weights = (_inputs(inner, part) for part in (self.state, self.weights, self.weights))
        items = _items(inner, sequences)
        items, state, output_diffs = _parts(items, len(self.sequences), len(before))
        output, after = self.step(inner, items, state, weights)
        seeds = dict(zip(after, state_diffs, strict=True))
        for diff in output_diffs:
            seeds[output] = inner.Add(seeds[output], diff) if output in seeds else diff
        by = [*state, *weights, *items]
        found = [
            inner.zeros(value) if diff is None else diff
            for value, diff in zip(by, gradients(inner, seeds, by), strict=True)
        ]
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
    return [inner.input("carried", inner.shape(value), value.dtype.numpy()) for value in values]


def _items(inner: Builder, sequences: Values) -> Values:
    return [inner.input("item", inner.shape(value)[1:], value.dtype.numpy()) for value in sequences]


def _parts(values: Values, *sizes: int) -> list[Values]:
    """``values`` cut into parts of these sizes, and what is left."""
    parts, start = [], 0
    for size in sizes:
        parts.append(values[start : start + size])
        start += size
    return [*parts, values[start:]]
