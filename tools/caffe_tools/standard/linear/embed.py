"""Embed: a learnable vector for each index.

Source: Caffe src/caffe/layers/embed_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import UInt
from caffe_tools.prototxt.messages import WEIGHT_AND_BIAS
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import CLASS_INDEX, layer_type


@layer_type(
    "Embed", labels={0: CLASS_INDEX}, embed_param={"num_output": UInt(), "input_dim": UInt(), **WEIGHT_AND_BIAS}
)
def embed(op: Builder, layer: Layer, index: ir.Value) -> ir.Value:
    """Row ``index`` of the weight (input_dim × num_output), plus the bias: one more axis than the bottom has."""
    p = layer.embed_param
    if not p.num_output or not p.input_dim:
        raise layer.error("give num_output and input_dim, both 1 or more")
    weight, bias = layer.weight_and_bias(p, (p.input_dim, p.num_output), p.num_output)
    layer.expect_labels(0, p.input_dim)
    y = op.Gather(weight, op.cast(index, "int64"), axis=0)
    return y if bias is None else op.Add(y, bias)
