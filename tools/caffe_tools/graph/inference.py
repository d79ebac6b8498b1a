"""The dtypes and shapes of a node's outputs: by onnx's own inference, and by a table where that tells too little."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
from onnx import shape_inference

from caffe_tools.errors import GraphError, one_line
from caffe_tools.graph.dims import Dim, broadcast_dims, shape_of

LARGEST_CONSTANT = 64
"""Shape inference looks into constants (target shapes, axes, pads) up to this many elements."""


def infer(schema: onnx.defs.OpSchema, node: ir.Node, opset: int) -> None:
    """Give the outputs of ``node`` their dtypes and shapes; a dim that cannot be told gets a name of its own.

    Raises GraphError where the operator does not take these inputs, and where the rank of an output cannot be told.
    """
    if node.op_type == "Loop":  # onnx would look into its body; what goes round keeps its dtype and shape
        for before, after in zip(filter(None, node.inputs[2:]), node.outputs, strict=True):
            after.type, after.shape = before.type, before.shape
        return
    inferred = _inferred_by_onnx(schema, node, opset)
    complete = _COMPLETED.get(node.op_type, lambda node, dims: dims)
    for index, output in enumerate(node.outputs):
        tensor = inferred[output.name].tensor_type if output.name in inferred else None
        dims = complete(node, _dims(tensor)) if tensor is not None else None
        if tensor is None or dims is None:
            raise GraphError(f"the shape of output {index} of {node.op_type} ({node.name}) cannot be told")
        output.dtype = ir.DataType(tensor.elem_type)
        output.shape = ir.Shape([f"{output.name}.dim{axis}" if dim is None else dim for axis, dim in enumerate(dims)])


def _inferred_by_onnx(schema: onnx.defs.OpSchema, node: ir.Node, opset: int) -> dict[str, onnx.TypeProto]:
    inputs = [value for value in node.inputs if value is not None]
    types, constants = {}, {}
    for value in inputs:
        if value.shape is None or value.dtype is None:
            raise GraphError(f"{node.op_type} cannot take {value.name!r}: its dtype or rank cannot be told")
        types[str(value.name)] = onnx.helper.make_tensor_type_proto(int(value.dtype), shape_of(value))
        if value.const_value is not None and value.const_value.size <= LARGEST_CONSTANT:
            constants[str(value.name)] = ir.to_proto(value.const_value)
    opsets = [onnx.helper.make_opsetid("", opset)]
    try:
        return shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, constants, opset_imports=opsets)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        shapes = ", ".join(f"{value.name} {shape_of(value)}" for value in inputs)
        raise GraphError(f"{node.op_type} does not take {shapes}: {one_line(error)}") from None


_Dims = list[Dim | None]


def _dims(tensor: onnx.TypeProto.Tensor) -> _Dims | None:
    """The inferred dims, None for one that onnx cannot tell; None where it cannot even tell the rank."""
    if not tensor.HasField("shape"):
        return None
    return [getattr(dim, kind) if (kind := dim.WhichOneof("value")) else None for dim in tensor.shape.dim]


def _broadcast(node: ir.Node, dims: _Dims | None) -> _Dims | None:
    """onnx's inference loses symbolic dims where an operator broadcasts any number of inputs."""
    return dims and broadcast_dims([shape_of(value) for value in node.inputs if value is not None], dims)


def _reduced(node: ir.Node, dims: _Dims | None) -> _Dims | None:
    """The axes are known when it runs, the rank is now, unless keepdims says otherwise."""
    if dims is None and "keepdims" not in node.attributes and node.inputs[0] is not None:
        return [None] * len(shape_of(node.inputs[0]))
    return dims


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
_COMPLETED: dict[str, Callable[[ir.Node, _Dims | None], _Dims | None]] = {
    **dict.fromkeys(("Where", "Sum", "Max", "Min", "Mean"), _broadcast),
    **dict.fromkeys([f"Reduce{name}" for name in _REDUCTIONS], _reduced),
}
"""Operator → what completes the dims that onnx inferred."""
