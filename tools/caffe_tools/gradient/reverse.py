"""Reverse mode over an ONNX graph: the gradient of some values by others, appended to the graph that computes them.

The nodes are walked from last to first; each hands the diffs of its outputs to the rule of its operator (one per ONNX
op, in the files beside this one), which gives the diffs of its inputs; diffs of a value used several times add up. A
layer's own gradient (``Builder.define_gradient``) stands for all the nodes between its bottoms and its tops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from caffe_tools.errors import GraphError
from caffe_tools.gradient.rules import NOT_DIFFERENTIABLE, RULES, NodeGradient
from caffe_tools.graph.builder import Builder, DefinedGradient


def gradients(
    op: Builder, seeds: Mapping[ir.Value, ir.Value], by: Sequence[ir.Value], passed: Sequence[ir.Value] = ()
) -> list[ir.Value | None]:
    """The gradient by each value of ``by`` of Σ seed · value, or None where no gradient reaches it.

    ``seeds`` maps values of the graph to their diffs (for a loss: its loss_weight). The nodes are appended to ``op``'s
    graph and may use every value of the forward, so that each forward value is computed once. The gradients by the
    values ``passed`` follow, as far as the way to those of ``by`` leads through them; nothing is computed for them.

    Raises GraphError where a path from ``by`` to a seed leads through an operator without a rule.
    """
    depends = _values_that_depend_on(op, by)
    diffs: dict[ir.Value, ir.Value] = {}
    for value, seed in seeds.items():
        if value in depends:
            diffs[value] = seed
    closing = {_last_node(op, defined.tops): defined for defined in op.defined_gradients}
    inside = {top for defined in op.defined_gradients for top in defined.tops}
    for node in reversed(list(op.graph)):
        defined = closing.get(node)
        with op.layer(node.metadata_props.get("layer", ""), is_gradient=True):
            if defined is not None:
                _defined_gradient(op, defined, depends, diffs)
            elif not any(output in inside for output in node.outputs):
                _node_gradient(op, node, depends, diffs)
    return [diffs.get(value) for value in (*by, *passed)]


def _values_that_depend_on(op: Builder, by: Sequence[ir.Value]) -> set[ir.Value]:
    depends = set(by)
    tops_of: dict[ir.Value, DefinedGradient] = {top: d for d in op.defined_gradients for top in d.tops}
    for node in op.graph:
        if node.op_type in NOT_DIFFERENTIABLE:
            continue
        for output in node.outputs:
            sources = tops_of[output].bottoms if output in tops_of else (*node.inputs, *_captured(node))
            if _is_float(output) and any(source in depends for source in sources if source is not None):
                depends.add(output)
    return depends


def _last_node(op: Builder, tops: Sequence[ir.Value]) -> ir.Node | None:
    """The last of the nodes that make the tops; None where they are inputs of the graph."""
    nodes = [node for top in tops if (node := top.producer()) is not None]
    if len(nodes) > 1:
        order = {node: index for index, node in enumerate(op.graph)}
        nodes.sort(key=lambda node: order[node])
    return nodes[-1] if nodes else None


def _defined_gradient(
    op: Builder, defined: DefinedGradient, depends: set[ir.Value], diffs: dict[ir.Value, ir.Value]
) -> None:
    top_diffs = [diffs.get(top) for top in defined.tops]
    if all(diff is None for diff in top_diffs) or not any(bottom in depends for bottom in defined.bottoms):
        return
    for bottom, diff in zip(defined.bottoms, defined.rule(*top_diffs), strict=True):
        if diff is not None and bottom in depends:
            _add(op, diffs, bottom, diff)


def _node_gradient(op: Builder, node: ir.Node, depends: set[ir.Value], diffs: dict[ir.Value, ir.Value]) -> None:
    output_diffs = [diffs.get(output) for output in node.outputs]
    if all(diff is None for diff in output_diffs):
        return
    wanted = [(index, value) for index, value in enumerate(node.inputs) if value is not None and value in depends]
    if not wanted and not any(value in depends for value in _captured(node)):
        return
    rule = RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        layer = node.metadata_props.get("layer")
        where = f" of layer {layer!r}" if layer else f" ({node.name})"
        raise GraphError(f"no gradient rule for ONNX op {node.op_type}{where}")
    view = NodeGradient(op, node, output_diffs)
    for index, value in wanted:
        diff = rule(view, index)
        if diff is not None:
            _add(op, diffs, value, diff)


def _captured(node: ir.Node) -> list[ir.Value]:
    """The values from outside that the graphs within a node (If, Loop, Scan) use without having them as inputs."""
    graphs = [attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]
    used = [value for graph in graphs for inner in graph.all_nodes() for value in inner.inputs if value is not None]
    return [value for value in used if value.graph is node.graph]


def _add(op: Builder, diffs: dict[ir.Value, ir.Value], value: ir.Value, diff: ir.Value) -> None:
    diffs[value] = op.Add(diffs[value], diff) if value in diffs else diff


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()
