"""InnerProduct: a fully connected layer.

Source: Caffe src/caffe/layers/inner_product_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Int, UInt
from caffe_tools.prototxt.messages import WEIGHT_AND_BIAS
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type(
    "InnerProduct",
    output_axis=lambda layer: 1 if layer.inner_product_param.transpose else 0,
    inner_product_param={"num_output": UInt(), **WEIGHT_AND_BIAS, "axis": Int(1), "transpose": Bool(False)},
)
def inner_product(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x, flattened from ``axis`` on, times the weight (num_output × inputs, or transposed), plus the bias."""
    p, shape = layer.inner_product_param, op.shape(x)
    axis = layer.axis(p.axis, x)
    outputs = p.num_output
    if not outputs:
        raise layer.error("num_output is missing or 0")
    inputs = math.prod(layer.fixed(shape[axis:], f"the dims from axis {axis} on, which give the weight its shape,"))
    weight, bias = layer.weight_and_bias(p, (inputs, outputs) if p.transpose else (outputs, inputs), outputs)
    rows = x if len(shape) == 2 and axis == 1 else op.reshape(x, [-1, inputs])
    y = op.Gemm(rows, weight, bias, transB=None if p.transpose else 1)
    return op.reshape(y, [*shape[:axis], outputs])
