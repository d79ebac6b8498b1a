"""Graph-to-graph steps, as onnx-ir's passes: they compose with each other and with those of the library."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


class RemoveUnused(ir.passes.InPlacePass):
    """Drop nodes and stored tensors that no output needs, and the inputs among them, which the library leaves."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = RemoveUnusedNodesPass()(model).modified
        inputs = model.graph.inputs
        unused = [value for value in inputs if not value.uses() and not value.is_graph_output()]
        for value in unused:
            inputs.remove(value)
        return ir.passes.PassResult(model, modified or bool(unused))
