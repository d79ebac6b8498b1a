"""InnerProduct: a fully connected layer.

Source: Caffe src/caffe/layers/inner_product_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Int, Submessage, UInt
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type(
    "InnerProduct",
    output_axis=lambda layer: 1 if layer.inner_product_param.transpose else 0,
    inner_product_param={
        "num_output": UInt(),
        "bias_term": Bool(True),
        "weight_filler": Submessage(FILLER),
        "bias_filler": Submessage(FILLER),
        "axis": Int(1),
        "transpose": Bool(False),
    },
)
def inner_product(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x, flattened from ``axis`` on, times the weight (num_output × inputs, or transposed), plus the bias."""
    p, shape = layer.inner_product_param, op.shape(x)
    axis = layer.axis(p.axis, x)
    outputs, inner = p.num_output or 0, shape[axis:]
    if outputs < 1:
        raise layer.error("num_output is missing or 0")
    if not all(isinstance(dim, int) for dim in inner):
        raise layer.error(f"the dims from axis {axis} on must be fixed, not {inner}: they give the weight its shape")
    inputs = math.prod(inner)
    weight = layer.parameter((inputs, outputs) if p.transpose else (outputs, inputs), p.weight_filler)
    bias = layer.parameter((outputs,), p.bias_filler) if p.bias_term else None
    rows = x if len(shape) == 2 and axis == 1 else op.reshape(x, [-1, inputs])
    y = op.Gemm(rows, weight, bias, transB=None if p.transpose else 1)
    return op.reshape(y, [*shape[:axis], outputs])
