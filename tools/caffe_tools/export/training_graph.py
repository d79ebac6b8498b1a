"""The gradients of a net, appended to the graph of its forward pass.

Source: Caffe src/caffe/net.cpp (``Backward``); a loss's diff is its loss_weight (``Layer::SetLossWeights``).
"""

from __future__ import annotations

import onnx_ir as ir

from caffe_tools.export.forward_graph import ForwardGraph, Named
from caffe_tools.gradient import gradients
from caffe_tools.net.keys import DIFF, PDIFF, split_key
from caffe_tools.net.results import Result, Results


class TrainingGraph:
    """Where backward starts in the graph of ``forward``, and the gradients that it gives."""

    def __init__(self, forward: ForwardGraph) -> None:
        self.forward = forward
        self.top_diffs: dict[str, ir.Value] = {}
        """The diffs of the outputs that a net without a loss is fed."""
        self.losses = [
            (forward.blob(top), forward.current[top], weight)
            for placed in forward.net.placed
            for top, weight in zip(placed.spec.tops, placed.loss_weights, strict=True)
            if weight
        ]
        """The blobs with a loss_weight, their values, and it."""
        self.inner: dict[Result, ir.Value] = {}
        """The diffs of all results of all blobs, and of the tops of inserted Splits, as far as gradients pass them."""
        self._seeds = self._make_seeds()

    def diffs(self, of_inputs: bool, of_all_blobs: bool) -> dict[str, Named]:
        """``pdiff/<layer>/<i>`` of every learnable blob, and ``diff/<blob>``.

        Learnable blobs, and inputs of the model ``of_inputs``, have zeros where no gradient reaches them.
        """
        forward, op = self.forward, self.forward.op
        wanted = PDIFF.keyed(forward.parameters)
        if of_inputs or of_all_blobs:
            wanted |= DIFF.keyed(forward.inputs)
        if of_all_blobs:
            results = Results(forward.net)
            stays = {blob: results.whose_diff_stays(blob).number for blob in forward.results}
            wanted |= DIFF.keyed({blob: values[stays[blob] - 1] for blob, values in forward.results.items()})
            # the gradient nearest to the loss comes first: those below may be the same value, and are copies of it then
            gradients_of_blobs = [key for key in wanted if split_key(key)[0] == DIFF]
            wanted = {key: wanted[key] for key in reversed(gradients_of_blobs)} | wanted
        found = {}
        inner = forward.inner() if of_all_blobs else {}
        diffs = gradients(op, self._seeds, list(wanted.values()), list(inner.values()))
        self.inner = {
            result: diff for result, diff in zip(inner, diffs[len(wanted) :], strict=True) if diff is not None
        }
        for (key, value), diff in zip(wanted.items(), diffs, strict=False):
            kind, name = split_key(key)
            if diff is None and (kind == PDIFF or (of_inputs and _is_used_input(value))):
                diff = op.zeros(value)
            is_fed = kind == DIFF and diff is self.top_diffs.get(name)
            if diff is not None and not is_fed:
                found[key] = Named(f"{value.name}.diff", diff)
        return found

    def _make_seeds(self) -> dict[ir.Value, ir.Value]:
        """The diffs that backward starts from: the loss weights, or for a net without a loss inputs of the model."""
        op, forward = self.forward.op, self.forward
        seeds: dict[ir.Value, ir.Value] = {}
        for _, value, weight in self.losses:
            seed = op.constant(weight)
            if op.shape(value) != ():
                seed = op.Add(op.zeros(value), seed)
            seeds[value] = op.Add(seeds[value], seed) if value in seeds else seed
        if not forward.net.has_loss:
            for blob in forward.net_outputs():
                value = forward.results[blob][-1]
                if value is not forward.inputs.get(blob):
                    name = value.name if blob in forward.inputs else blob
                    diff = self.top_diffs[blob] = op.input(f"{name}.diff", op.shape(value))
                    seeds[value] = op.Add(seeds[value], diff) if value in seeds else diff
        return seeds


def _is_used_input(value: ir.Value) -> bool:
    return value.producer() is None and bool(value.uses())
