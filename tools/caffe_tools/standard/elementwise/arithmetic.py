"""Layers that combine blobs, or scale and shift one: Eltwise, Scale, Bias, Reduction.

Source: Caffe src/caffe/layers/eltwise_layer.cpp, scale_layer.cpp, bias_layer.cpp, reduction_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, Repeated, Submessage, Values
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.standard.layer import Layer, dims_text, filler_of
from caffe_tools.standard.registry import layer_type


@layer_type(
    "Eltwise",
    bottoms=(2, None),
    eltwise_param={
        "operation": Enum("PROD", "SUM", "MAX", default="SUM"),
        "coeff": Repeated(Float()),
        "stable_prod_grad": Bool(True),
    },
)
def eltwise(op: Builder, layer: Layer, *bottoms: ir.Value) -> ir.Value:
    """The product, the weighted sum or the maximum of the bottoms, element by element."""
    p = layer.eltwise_param
    for index, x in enumerate(bottoms):
        layer.expect_shape(index, x, op.shape(bottoms[0]), "all bottoms of Eltwise have one shape")
    if p.coeff and p.operation == "PROD":
        raise layer.error("coeff goes with operation SUM, not PROD")
    if p.coeff and len(p.coeff) != len(bottoms):
        raise layer.error(f"coeff is given {len(p.coeff)} times for {len(bottoms)} bottoms: give it once for each")
    if p.operation == "SUM":
        terms = [x if c == 1 else op.Mul(x, c) for x, c in zip(bottoms, p.coeff or [1] * len(bottoms), strict=True)]
        return reduce(op.Add, terms)
    if p.operation == "PROD":
        y = reduce(op.Mul, bottoms)
        if not p.stable_prod_grad:
            op.define_gradient([y], bottoms, lambda dy: [op.Mul(op.Div(y, x), dy) for x in bottoms])
        return y
    first, second, *others = bottoms
    # of two equal elements Caffe's backward favours the second bottom, but none of those after it
    y = op.Where(op.Greater(first, second), first, second)
    for x in others:
        y = op.Where(op.Greater(x, y), x, y)
    return y


def _operand(layer: Layer, op: Builder, p: Values, bottoms: tuple, filler: Values) -> tuple[ir.Value, int]:
    """The factor or summand (the second bottom, or a learnable blob) and the axis of the first where it starts."""
    x, shape = bottoms[0], op.shape(bottoms[0])
    if len(bottoms) == 2:
        other = op.shape(bottoms[1])
        axis = layer.axis(p.axis, x) if other else 0
        if axis + len(other) > len(shape):
            raise layer.error(
                f"bottom {layer.spec.bottoms[1]!r} of shape {dims_text(other)} reaches beyond the axes of"
                f" {dims_text(shape)} when it starts at axis {axis}"
            )
        layer.expect_shape(1, bottoms[1], shape[axis : axis + len(other)], f"it applies from axis {axis} on")
        return bottoms[1], axis
    if p.num_axes < -1:
        raise layer.error(f"num_axes {p.num_axes} must be -1 or more")
    axis = layer.axis(p.axis, x) if p.num_axes else 0
    end = len(shape) if p.num_axes == -1 else axis + p.num_axes
    if end > len(shape):
        raise layer.error(f"num_axes {p.num_axes} from axis {axis} on is too many for a blob of {len(shape)} axes")
    return layer.parameter(layer.fixed(shape[axis:end], "the dims that it covers"), filler), axis


def _aligned(op: Builder, value: ir.Value, axis: int, rank: int) -> ir.Value:
    """``value``, which starts at ``axis`` of a blob of ``rank`` axes, with dims of 1 behind it to broadcast."""
    behind = rank - axis - len(op.shape(value))
    return op.reshape(value, [*op.shape(value), *[1] * behind]) if behind and op.shape(value) else value


def _factor_and_summand(layer: Layer, blobs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | float] | None:
    """What each channel is multiplied and shifted by, where the layer has a learnable factor for each."""
    p = layer.scale_param
    if len(layer.spec.bottoms) > 1 or (p.axis, p.num_axes) != (1, 1):
        return None
    return blobs[0], blobs[1] if len(blobs) > 1 else 0.0


@layer_type(
    "Scale",
    bottoms=(1, 2),
    per_channel=_factor_and_summand,
    scale_param={
        "axis": Int(1),
        "num_axes": Int(1),
        "filler": Submessage(FILLER),
        "bias_term": Bool(False),
        "bias_filler": Submessage(FILLER),
    },
)
def scale(op: Builder, layer: Layer, *bottoms: ir.Value) -> ir.Value:
    """x · scale (+ bias), with a scale that covers some axes of x from ``axis`` on."""
    p, x = layer.scale_param, bottoms[0]
    factor, axis = _operand(layer, op, p, bottoms, filler_of(p, "filler", 1.0))
    rank = len(op.shape(x))
    y = op.Mul(x, _aligned(op, factor, axis, rank))
    if p.bias_term:
        bias = layer.parameter(layer.fixed(op.shape(factor), "the dims that it covers"), p.bias_filler)
        y = op.Add(y, _aligned(op, bias, axis, rank))
    return y


@layer_type("Bias", bottoms=(1, 2), bias_param={"axis": Int(1), "num_axes": Int(1), "filler": Submessage(FILLER)})
def bias(op: Builder, layer: Layer, *bottoms: ir.Value) -> ir.Value:
    """x + bias, with a bias that covers some axes of x from ``axis`` on."""
    p = layer.bias_param
    summand, axis = _operand(layer, op, p, bottoms, p.filler)
    return op.Add(bottoms[0], _aligned(op, summand, axis, len(op.shape(bottoms[0]))))


@layer_type(
    "Reduction",
    reduction_param={
        "operation": Enum(numbers={"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4}),
        "axis": Int(0),
        "coeff": Float(1.0),
    },
)
def reduction(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """All axes from ``axis`` on reduced to one number, times coeff."""
    p = layer.reduction_param
    axes = list(range(layer.axis(p.axis, x), len(op.shape(x))))
    reduce_ = {"SUM": op.ReduceSum, "ASUM": op.ReduceL1, "SUMSQ": op.ReduceSumSquare, "MEAN": op.ReduceMean}
    y = reduce_[p.operation](x, axes, keepdims=0)
    return y if p.coeff == 1 else op.Mul(y, p.coeff)
