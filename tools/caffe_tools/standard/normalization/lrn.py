"""LRN: local response normalization, across channels or within each channel.

Source: Caffe src/caffe/layers/lrn_layer.cpp; Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
Networks, section 3.3.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Enum, Float, UInt
from caffe_tools.prototxt.messages import ENGINE
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.limits import expect_size
from caffe_tools.standard.registry import layer_type


@layer_type(
    "LRN",
    lrn_param={
        "local_size": UInt(5),
        "alpha": Float(1.0),
        "beta": Float(0.75),
        "norm_region": Enum("ACROSS_CHANNELS", "WITHIN_CHANNEL"),
        "k": Float(1.0),
        "engine": ENGINE,
    },
)
def lrn(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x · (k + alpha · m)^−beta, where m is the mean of x² over ``local_size`` neighbours, zeros beyond the edges.

    Across channels the neighbours are channels at the same place; within a channel they are a square of
    ``local_size`` × ``local_size`` places, and k is 1 whatever is given.
    """
    p, shape = layer.lrn_param, layer.expect_axes(0, x, 4)
    if p.local_size % 2 == 0:
        raise layer.error(f"local_size {p.local_size} must be odd")
    if not (0 <= p.alpha < math.inf and 0 <= p.beta < math.inf):
        raise layer.error(f"alpha {p.alpha:g} and beta {p.beta:g} must be 0 or more: others are not covered")
    if p.alpha == 0 or p.beta == 0:  # ONNX Runtime's LRN takes neither
        return op.Mul(x, p.k**-p.beta if p.norm_region == "ACROSS_CHANNELS" else 1.0)
    if p.norm_region == "ACROSS_CHANNELS":
        expect_size(layer.spec, "its padded bottom", (shape[0], p.local_size, *shape[2:]))
        return op.LRN(x, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)
    pad = (p.local_size - 1) // 2
    mean = op.AveragePool(op.Mul(x, x), kernel_shape=[p.local_size] * 2, pads=[pad] * 4, count_include_pad=1)
    mean.shape = ir.Shape(shape)
    return op.Mul(x, op.Pow(op.Add(op.Mul(mean, p.alpha), 1.0), -p.beta))
