"""The gradients of any ONNX model: the public face of this package."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import inliner, version_converter
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
from onnx_ir.serde import SerdeError

from caffe_tools.errors import GraphError, nearest, one_line
from caffe_tools.gradient.reverse import gradients
from caffe_tools.gradient.rules import NOT_DIFFERENTIABLE, RULES, diffs_or_zeros
from caffe_tools.graph.builder import OPSET, Builder
from caffe_tools.graph.dims import dtype_of


def gradient_model(
    model: onnx.ModelProto | str | os.PathLike, output: str, by: Sequence[str], *, output_diff: str | None = None
) -> onnx.ModelProto:
    """A model that computes ``output`` and its gradient by each value of ``by``, in standard operators.

    ``output`` and ``by`` name any values of ``model``: inputs, stored tensors or inner ones. What is differentiated is
    the sum of ``output``'s elements, or, with ``output_diff``, the sum of their products with a further input of that
    name, of ``output``'s shape and dtype. The result has the outputs ``output`` and ``<name>.diff`` for each name of
    ``by``, of the value's shape and dtype (zeros where ``output`` does not depend on it), and those inputs of ``model``
    that they need. Nodes that only other outputs need are left out. Local functions, and operators that ONNX defines
    by others, are replaced by what they are made of; a model below opset 18 is converted to it.

    Raises GraphError for a name that the model lacks, or that is no float tensor, and where a path from ``by`` to
    ``output`` leads through an operator without a gradient, which it names.
    """
    proto = onnx.load(model) if isinstance(model, (str, os.PathLike)) else model
    try:
        return _differentiated(ir.from_proto(_in_plain_operators(proto)), output, by, output_diff)
    except SerdeError as error:  # a damaged model, such as one whose names are no text
        raise GraphError(f"the model {proto.graph.name!r} is damaged: {one_line(error)}") from None


def _differentiated(standing: ir.Model, output: str, by: Sequence[str], output_diff: str | None) -> onnx.ModelProto:
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(standing)
    values = named_values(standing.graph)
    target, sources = _float_value(values, output), [_float_value(values, name) for name in by]
    graph = standing.graph
    graph.outputs.clear()
    graph.outputs.extend([target, *sources])  # so that no source is taken for unused
    RemoveUnusedNodesPass()(standing)
    graph.outputs.clear()
    op = Builder.over(graph, dtype_of(target))
    op.output(target, output)
    seed = _seed(op, target, output_diff)
    for name, diff in zip(by, diffs_or_zeros(op, gradients(op, {target: seed}, sources), sources), strict=True):
        op.output(diff, f"{name}.diff")
    RemoveUnusedNodesPass()(standing)
    for value in [value for value in graph.inputs if not value.uses() and not value.is_graph_output()]:
        if value.name != output_diff:
            graph.inputs.remove(value)
    return ir.to_proto(standing)


def named_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """The values of the graph, but not of graphs within it, by name."""
    values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    return {value.name: value for value in values if value.name}


def find(name: str, names: Sequence[str], owner: str, kind: str = "tensor") -> str:
    """``name``, which must be one of ``names``. Raises GraphError with the nearest of them."""
    if name in names:
        return name
    hint = nearest(name, names, most=3, cutoff=0.5) or f"it has {', '.join(sorted(names)[:12])}"
    raise GraphError(f"{owner} has no {kind} {name!r}: {hint}")


def _in_plain_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with shapes, in an opset that the rules know, and without functions where there is no rule for them."""
    versions = {opset.domain: opset.version for opset in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", OPSET))
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        if version < OPSET:
            model = version_converter.convert_version(model, OPSET)
        return _with_shapes(_without_composed_operators(model))
    except Exception as error:  # onnx's C++ parts raise what they like
        message = one_line(error)
        raise GraphError(f"the model {model.graph.name!r} cannot be prepared for gradients: {message}") from None


def _without_composed_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with operators that have no rule replaced by what ONNX defines them by, as far as it does."""
    left_alone = {*RULES, *NOT_DIFFERENTIABLE, "CastLike"}
    while True:
        composed = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")} - left_alone
        if not composed:
            return model
        for op_type in composed:
            left_alone.add(op_type)
            try:
                model = inliner.inline_selected_functions(model, [("", op_type)], inline_schema_functions=True)
            except RuntimeError:  # onnx cannot inline every operator: one that matters is named for its missing rule
                continue


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the dtypes and shapes of its values, and no CastLike, whose second input has no gradient."""
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    cast_like = [node for node in model.graph.node if node.op_type == "CastLike"]
    if not cast_like:
        return model
    graph = model.graph
    dtypes = {tensor.name: tensor.data_type for tensor in graph.initializer}
    dtypes |= {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    for node in cast_like:
        node.op_type = "Cast"
        node.attribute.append(onnx.helper.make_attribute("to", dtypes[node.input.pop()]))
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _float_value(values: dict[str, ir.Value], name: str) -> ir.Value:
    value = values[find(name, list(values), "the model")]
    if value.dtype is None or value.shape is None:
        raise GraphError(f"the dtype and rank of {name!r} cannot be told, so there is no gradient of or by it")
    if not value.dtype.is_floating_point():
        raise GraphError(f"{name!r} holds {dtype_of(value)}, and there are gradients of and by floats alone")
    return value


def _seed(op: Builder, target: ir.Value, output_diff: str | None) -> ir.Value:
    if output_diff is not None:
        if output_diff in named_values(op.graph):
            raise GraphError(f"the model has a tensor {output_diff!r} already: give output_diff another name")
        return op.input(output_diff, op.shape(target), dtype_of(target))
    return op.Add(op.zeros(target), np.ones((), dtype_of(target)))
