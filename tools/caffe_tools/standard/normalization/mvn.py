"""MVN: each image, or each channel of it, brought to mean 0 and variance 1 by its own statistics.

Source: Caffe src/caffe/layers/mvn_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.normalization.batch_norm import define_normalized_gradient
from caffe_tools.standard.registry import layer_type


@layer_type("MVN", mvn_param={"normalize_variance": Bool(True), "across_channels": Bool(False), "eps": Float(1e-9)})
def mvn(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """(x − mean) / (deviation + eps), or x − mean, over the places of a channel or of all channels of an image."""
    p, rank = layer.mvn_param, len(layer.expect_axes(0, x, 1, 4))
    axes = list(range(1 if p.across_channels else 2, rank))
    if not axes:
        return op.zeros(x)  # every element is its own mean
    centered = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    if not p.normalize_variance:
        return centered
    deviation = op.Sqrt(op.ReduceMean(op.Mul(centered, centered), axes, keepdims=1))
    divisor = op.Add(deviation, p.eps)
    y = op.Div(centered, divisor)
    define_normalized_gradient(op, y, x, axes, divisor)
    return y
