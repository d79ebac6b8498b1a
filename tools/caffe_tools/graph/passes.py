"""Graph-to-graph steps, as onnx-ir's passes: they compose with each other and with those of the library."""

from __future__ import annotations

import onnx_ir as ir


class RemoveUnused(ir.passes.InPlacePass):
    """Drop nodes and stored tensors that no output needs, and the inputs among them.

    The library's RemoveUnusedNodesPass keeps inputs, and drops a node's empty inputs as well: ONNX Runtime then fuses
    other nodes, and its numbers change.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        nodes = len(graph)
        for node in reversed(graph):
            if not any(map(_is_used, node.outputs)):
                graph.remove(node, safe=True)
        for name in [name for name, value in graph.initializers.items() if not _is_used(value)]:
            del graph.initializers[name]
        for value in [value for value in graph.inputs if not _is_used(value)]:
            graph.inputs.remove(value)
        return ir.passes.PassResult(model, len(graph) < nodes)


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
