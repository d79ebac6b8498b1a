"""Normalize: vectors brought to length 1, then to a learnt scale (the L2 norm before SSD's first prediction layer).

Source: Caffe-SSD src/caffe/layers/normalize_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Submessage
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.standard.layer import Layer, filler_of
from caffe_tools.standard.registry import layer_type


@layer_type(
    "Normalize",
    norm_param={
        "across_spatial": Bool(True),
        "scale_filler": Submessage(FILLER),
        "channel_shared": Bool(True),
        "eps": Float(1e-10),
    },
)
def normalize(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """scale · x / √(Σx² + eps), where Σ runs over an image's channels, and ``across_spatial`` over its positions too.

    The scale is learnt: one for all channels (``channel_shared``) or one for each, at first 1.
    """
    p, shape = layer.norm_param, layer.expect_axes(0, x, 2, 4)
    axes = list(range(1, len(shape))) if p.across_spatial else [1]
    stored = layer.parameter(() if p.channel_shared else (shape[1],), filler_of(p, "scale_filler", 1.0))
    scale = stored if p.channel_shared else op.reshape(stored, [1, shape[1], *[1] * (len(shape) - 2)])
    norm = op.Sqrt(op.Add(op.ReduceSumSquare(x, axes, keepdims=1), p.eps))
    unit = op.Div(x, norm)
    y = op.Mul(unit, scale)

    def gradient(dy: ir.Value) -> list[ir.Value]:
        # Caffe scales what is left of dy once its part along x is taken out: for unequal scales that is not the
        # derivative, in which dy is scaled first
        along = op.ReduceSum(op.Mul(unit, dy), axes, keepdims=1)
        dx = op.Mul(op.Div(op.Sub(dy, op.Mul(unit, along)), norm), scale)
        others = [axis for axis in range(len(shape)) if axis != 1]
        return [dx, op.ReduceSum(op.Mul(unit, dy), None if p.channel_shared else others, keepdims=0)]

    op.define_gradient([y], [x, stored], gradient)
    return y
