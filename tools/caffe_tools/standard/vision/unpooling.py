"""Upsample and Unpooling: pooling undone, with the places that MAX pooling gives as its second top.

Source: caffe-segnet src/caffe/layers/upsample_layer.cpp; MobileNet-YOLO's of the same name (one bottom);
HyeonwooNoh/caffe (DeconvNet) src/caffe/layers/unpooling_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, UInt
from caffe_tools.standard.layer import Layer, both_axes
from caffe_tools.standard.limits import expect_size
from caffe_tools.standard.registry import REAL, layer_type


@layer_type(
    "Upsample",
    bottoms=(1, 2),
    labels={1: REAL},
    upsample_param={
        **both_axes("scale", UInt()),
        "pad_out_h": Bool(False),
        "pad_out_w": Bool(False),
        "upsample_h": UInt(),
        "upsample_w": UInt(),
    },
)
def upsample(op: Builder, layer: Layer, x: ir.Value, *mask: ir.Value) -> ir.Value:
    """Each element at the place in the larger image that the mask names, zeros elsewhere; or, without one, repeated.

    The larger image is ``upsample_h`` × ``upsample_w``, or ``scale`` (default with a mask: 2) times as large, less 1
    where ``pad_out`` is set. Where places coincide the last element stands.
    """
    p, shape = layer.upsample_param, layer.expect_axes(0, x, 4)
    if not mask:
        return _repeated(op, layer, x)
    layer.expect_shape(1, mask[0], shape, "the mask has a place for each element")
    if {"upsample_h", "upsample_w"} <= p.given:
        return _placed(op, x, mask[0], op.constant([p.upsample_h, p.upsample_w]))
    scales = [p.scale_h, p.scale_w] if {"scale_h", "scale_w"} <= p.given else [2 if p.scale is None else p.scale] * 2
    less = [int(p.pad_out_h), int(p.pad_out_w)]
    if min(scales) < 2 or any(one and scale != 2 for one, scale in zip(less, scales, strict=True)):
        raise layer.error(f"its scale {scales} must be 2 or more, and 2 where pad_out is set", "upsample_param")
    return _placed(op, x, mask[0], _affine(op, x, scales, [-one for one in less]))


def _repeated(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    p = layer.upsample_param
    if p.given != {"scale"} or p.scale < 1:
        raise layer.error("with one bottom, give its scale, 1 or more, and nothing else", "upsample_param")
    y = op.Resize(
        x,
        None,
        [float(p.scale)] * 2,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=[2, 3],
    )
    window = {"kernel_shape": [p.scale] * 2, "strides": [p.scale] * 2}
    op.define_gradient([y], [x], lambda dy: [op.Mul(op.AveragePool(dy, **window), float(p.scale**2))])
    return y


@layer_type(
    "Unpooling",
    bottoms=(1, 2),
    labels={1: REAL},
    unpooling_param={
        "unpool": Enum("MAX", "AVE", "TILE"),
        **both_axes("pad", UInt(0)),
        **both_axes("kernel_size", UInt()),
        **both_axes("stride", UInt(1)),
        **both_axes("unpool_size", UInt()),
    },
)
def unpooling(op: Builder, layer: Layer, x: ir.Value, *mask: ir.Value) -> ir.Value:
    """MAX: each element at the place that the mask names, or at its window's first; AVE and TILE: over its window.

    AVE shares an element among its window's places, TILE repeats it; where windows overlap they add up. An axis of n
    grows to ``unpool_size``, else to the larger of (n − 1) · stride + kernel and n · stride + 1. For AVE and TILE alike
    the gradient is the mean over the window, as Caffe's is.
    """
    p, shape = layer.unpooling_param, layer.expect_axes(0, x, 4)
    kernel, strides = (layer.pair("unpooling_param", name, least=1) for name in ("kernel_size", "stride"))
    if p.pad or p.pad_h or p.pad_w:
        raise layer.error("pads must be 0: Caffe takes no other", "unpooling_param")
    size = layer.optional_pair("unpooling_param", "unpool_size", least=1)
    if size is None:
        # (n − 1) · s + k or n · s + 1, whichever is larger
        size_ = _affine(op, x, strides, [max(k - s, 1) for k, s in zip(kernel, strides, strict=True)])
    else:
        size_ = op.constant(size)
    if p.unpool == "MAX":
        if mask:
            layer.expect_shape(1, mask[0], shape, "the mask has a place for each element")
        return _placed(op, x, mask[0] if mask else _first_places(op, x, strides, size_), size_)
    return _over_windows(op, layer, x, kernel, strides, size_)


def _affine(op: Builder, x: ir.Value, factors: Sequence[int], summands: Sequence[int]) -> ir.Value:
    """height · factor + summand, and the width alike."""
    known = op.shape(x)[2:]
    if all(isinstance(dim, int) for dim in known):
        return op.constant([dim * f + s for dim, f, s in zip(known, factors, summands, strict=True)])
    return op.Add(op.Mul(op.dims(x, [2, 3]), np.array(factors)), np.array(summands))


def _placed(op: Builder, x: ir.Value, mask: ir.Value, size: ir.Value) -> ir.Value:
    """Zeros of that size, with the elements of ``x`` at the places (row · width + column) of ``mask``."""
    images = op.dims(x, [0, 1])
    rows = op.Concat(images, op.constant([-1]), axis=0)
    place = op.Reshape(op.cast(mask, "int64"), rows)
    zeros = op.Expand(op.constant(0.0, x.dtype.numpy()), op.Concat(images, op.ReduceProd(size, keepdims=1), axis=0))
    spread = op.ScatterElements(zeros, place, op.Reshape(x, rows), axis=2)
    y = op.Reshape(spread, op.Concat(images, size, axis=0))
    known = size.const_value.numpy().tolist() if size.const_value is not None else op.shape(y)[2:]
    y.shape = ir.Shape([*op.shape(x)[:2], *known])

    def gradient(dy: ir.Value) -> list[ir.Value | None]:
        dx = op.GatherElements(op.Reshape(dy, rows), place, axis=2)
        return [op.Reshape(dx, op.dims(x, range(4))), None]

    op.define_gradient([y], [x, mask], gradient)
    return y


def _first_places(op: Builder, x: ir.Value, strides: Sequence[int], size: ir.Value) -> ir.Value:
    """The place of the first element of each window, or the last place of the image where that lies beyond it."""
    down, across = (
        op.Min(op.Mul(op.places(x, axis + 2), strides[axis]), op.Sub(op.Gather(size, axis), 1)) for axis in (0, 1)
    )
    places = op.Add(op.Mul(op.Unsqueeze(down, [1]), op.Gather(size, 1)), across)
    return op.Expand(op.Unsqueeze(places, [0, 1]), op.dims(x, range(4)))


def _over_windows(
    op: Builder, layer: Layer, x: ir.Value, kernel: Sequence[int], strides: Sequence[int], size: ir.Value
) -> ir.Value:
    shape = op.shape(x)
    reach = _affine(op, x, strides, [k - s for k, s in zip(kernel, strides, strict=True)])
    if size.const_value is not None and reach.const_value is not None:
        if (size.const_value.numpy() < reach.const_value.numpy()).any():
            raise layer.error("unpool_size must hold all of its windows", "unpooling_param")
    expect_size(layer.spec, "its kernel", (shape[1], *kernel))
    value = 1 / (kernel[0] * kernel[1]) if layer.unpooling_param.unpool == "AVE" else 1.0
    weight = op.constant(np.full((shape[1], 1, *kernel), value, np.float32))
    spread = op.ConvTranspose(x, weight, kernel_shape=kernel, strides=strides, group=shape[1])
    # zeros behind the last window
    y = op.Pad(spread, op.Concat(op.constant([0] * 6), op.Sub(size, reach), axis=0))
    known = size.const_value.numpy().tolist() if size.const_value is not None else op.shape(y)[2:]
    y.shape = ir.Shape([*shape[:2], *known])

    def gradient(dy: ir.Value) -> list[ir.Value]:
        windows = op.Slice(dy, [0, 0], reach, [2, 3])
        return [op.AveragePool(windows, kernel_shape=kernel, strides=strides)]

    op.define_gradient([y], [x], gradient)
    return y
