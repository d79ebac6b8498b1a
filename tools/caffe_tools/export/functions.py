"""Plug-in layers as ONNX local functions, so that a viewer shows ``SigmoidFocalLoss`` and not its 25 nodes.

The nodes of one layer, and those of its gradient, become the body of one function each; layers with equal bodies share
it. The layer's parameters stand on the calling node as attributes: they tell the reader what was exported, the body has
them built in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from caffe_tools.graph.builder import Builder


@dataclass(frozen=True)
class LayerFunction:
    """How a plug-in layer is shown: the function's domain and name, and the attributes of the call."""

    domain: str
    name: str
    attributes: Mapping[str, Any]


@dataclass
class LayersAsFunctions(ir.passes.InPlacePass):
    """Replace the nodes of each of ``layers`` (by layer name) by calls of functions, which the model gets.

    The constants that are in the functions then are left behind in the graph, unused.
    """

    op: Builder
    layers: Mapping[str, LayerFunction]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        groups: dict[tuple[str, bool], list[ir.Node]] = {}
        for node in model.graph:
            layer = node.metadata_props.get("layer", "")
            if layer in self.layers:
                groups.setdefault((layer, "gradient" in node.metadata_props), []).append(node)
        functions: dict[bytes, ir.Function] = {}
        for (layer, is_gradient), nodes in groups.items():
            shown = self.layers[layer]
            inputs, outputs = self._boundary(nodes)
            name = f"{shown.name}Gradient" if is_gradient else shown.name
            attributes = _attributes(shown)
            declared = [ir.Attr(key, attribute.type, None) for key, attribute in attributes.items()]
            graph = self._body(nodes, inputs, outputs)
            body = ir.Function(shown.domain, name, "", graph=graph, attributes=declared)
            function = functions.setdefault(ir.to_proto(body).SerializeToString(), body)
            number = 2
            while model.functions.setdefault(function.identifier(), function) is not function:
                function.name, number = f"{name}_{number}", number + 1
            model.graph.opset_imports.setdefault(function.domain, 1)
            call = ir.Node(
                function.domain,
                function.name,
                inputs,
                list(attributes.values()),
                num_outputs=len(outputs),
                name=self.op.unique_name(f"{layer}/{function.name}"),
                metadata_props={"layer": layer},
            )
            _replace(model.graph, nodes, outputs, call)
        return ir.passes.PassResult(model, bool(groups))

    def _boundary(self, nodes: Sequence[ir.Node]) -> tuple[list[ir.Value], list[ir.Value]]:
        """The values that the nodes take from outside, and those of theirs that others use."""
        inside = set(nodes)
        inputs: dict[ir.Value, None] = {}
        outputs = []
        for node in nodes:
            for value in node.inputs:
                if value is not None and value.producer() not in inside and not self.op.is_constant(value):
                    inputs[value] = None
            for value in node.outputs:
                if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                    outputs.append(value)
        return list(inputs), outputs

    def _body(self, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Graph:
        """The same nodes over values of their own, with the constants that they take."""
        body: list[ir.Node] = []
        inner = {value: ir.val(f"in{index}") for index, value in enumerate(inputs)}
        for node in nodes:
            for value in node.inputs:
                if value is not None and value not in inner:
                    body.append(_constant_node(value, f"c{len(inner) + 1}"))
                    inner[value] = body[-1].outputs[0]
            taken = [None if value is None else inner[value] for value in node.inputs]
            attributes = list(node.attributes.values())
            body.append(ir.Node(node.domain, node.op_type, taken, attributes, num_outputs=len(node.outputs)))
            for value, twin in zip(node.outputs, body[-1].outputs, strict=True):
                inner[value] = twin
                twin.name = f"v{len(inner) + 1}"
        ends = [inner[value] for value in inputs], [inner[value] for value in outputs]
        return ir.Graph(*ends, nodes=body, opset_imports={"": self.op.opset})


def _constant_node(value: ir.Value, name: str) -> ir.Node:
    assert value.const_value is not None
    node = ir.node("Constant", [], {"value": ir.tensor(value.const_value.numpy())})
    node.outputs[0].name = name
    return node


def _attributes(shown: LayerFunction) -> dict[str, ir.Attr]:
    """The parameters that an attribute can hold: numbers, words and lists of one kind; null ones are left out."""
    converted = {}
    for key, value in shown.attributes.items():
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, (list, tuple)):
            value = [float(item) for item in value] if any(isinstance(item, float) for item in value) else list(value)
            if not value or any(isinstance(item, (list, tuple)) for item in value):
                continue
        if isinstance(value, (int, float, str, list)):
            converted[key] = ir.convenience.convert_attribute(key, value)
    return converted


def _replace(graph: ir.Graph, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], call: ir.Node) -> None:
    graph.insert_after(nodes[-1], call)
    for old, new in zip(outputs, call.outputs, strict=True):
        new.name, new.shape, new.type = old.name, old.shape, old.type
        old.name = None
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    for node in reversed(nodes):
        graph.remove(node, safe=True)
