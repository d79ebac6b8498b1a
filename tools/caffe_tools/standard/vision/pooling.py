"""Pooling: MAX and AVE over windows of an image, with Caffe's rounding, clipping and divisor.

Source: Caffe src/caffe/layers/pooling_layer.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, UInt
from caffe_tools.prototxt.messages import ENGINE
from caffe_tools.standard.layer import FLT_MAX, Layer, both_axes
from caffe_tools.standard.registry import layer_type

POOLING_PARAM = {
    "pool": Enum("MAX", "AVE", "STOCHASTIC"),
    **both_axes("pad", UInt(0)),
    **both_axes("kernel_size", UInt()),
    **both_axes("stride", UInt(1)),
    "engine": ENGINE,
    "global_pooling": Bool(False),
    "round_mode": Enum("CEIL", "FLOOR"),
}


@layer_type("Pooling", tops=(1, 2), pooling_param=POOLING_PARAM)
def pooling(op: Builder, layer: Layer, x: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    """The largest or the average element of each window; the second top of MAX is its place in the image, as a float.

    The place is row · width + column. AVE divides by the part of the window that lies within image and pad.
    """
    p, shape = layer.pooling_param, layer.expect_axes(0, x, 4)
    if p.pool == "STOCHASTIC":
        raise layer.error("pool STOCHASTIC is not covered: it runs in Caffe's GPU mode alone")
    if layer.top_count > 1 and p.pool != "MAX":
        raise layer.error("a second top (the mask) is offered by pool MAX alone")
    if p.global_pooling:
        return _global(op, layer, x)
    kernel, strides, pads = _window(layer)
    if not all(isinstance(dim, int) for dim in shape[2:]):
        return _of_any_size(op, layer, x)
    outputs = [
        output_size(size, k, s, pad, p.round_mode == "CEIL", clip=any(pads))
        for size, k, s, pad in zip(shape[2:], kernel, strides, pads, strict=True)
    ]
    if min(outputs) < 1:
        raise layer.error(f"a window of {kernel} does not fit the bottom's {shape[2]}×{shape[3]}")
    # without padding the last window may lie wholly beyond the image: it is left out, then filled in
    whole = [min(out, -(-size // s)) for out, size, s in zip(outputs, shape[2:], strides, strict=True)]
    empty = [out - w for out, w in zip(outputs, whole, strict=True)] if not any(pads) else [0, 0]
    ends = [
        max((out - 1 - e) * s + k - size - pad, 0)
        for out, e, s, k, size, pad in zip(outputs, empty, strides, kernel, shape[2:], pads, strict=True)
    ]
    window = {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *ends]}
    if p.pool == "MAX":
        tops = op.MaxPool(x, **window, outputs=layer.top_count)
        y, *place = tops if layer.top_count == 2 else (tops,)
        # ONNX counts places through the whole blob, Caffe within one image
        mask = [op.cast(op.Mod(found, shape[2] * shape[3]), x) for found in place]
        return (_with_empty(op, y, empty, -FLT_MAX), *(_with_empty(op, found, empty, -1.0) for found in mask))
    y = _with_empty(op, op.AveragePool(x, **window, count_include_pad=1), empty, 0.0)
    return _caffe_divisor(op, y, shape, kernel, strides, pads, outputs)


def _of_any_size(op: Builder, layer: Layer, x: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    """Pooling of images whose size only the running graph knows, by ONNX's ceil_mode.

    ONNX Runtime rounds, clips and divides as Caffe does, where no window can lie wholly beyond the image.
    """
    p, (kernel, strides, pads) = layer.pooling_param, _window(layer)
    if any(s > k for s, k in zip(strides, kernel, strict=True)):
        raise layer.error(f"strides {strides} beyond the kernel {kernel} need a fixed image size")
    window = {"kernel_shape": kernel, "strides": strides, "pads": pads * 2, "ceil_mode": int(p.round_mode == "CEIL")}
    if p.pool == "AVE":
        return op.AveragePool(x, **window, count_include_pad=1)
    if layer.top_count == 1:
        return op.MaxPool(x, **window)
    y, place = op.MaxPool(x, **window, outputs=2)
    image = op.ReduceProd(op.dims(x, [2, 3]), keepdims=0)
    return y, op.cast(op.Mod(place, image), x)


def _with_empty(op: Builder, y: ir.Value, empty: list[int], value: float) -> ir.Value:
    """``y`` with the rows and columns of windows that lie beyond the image."""
    return op.Pad(y, [0, 0, 0, 0, 0, 0, *empty], value) if any(empty) else y


def _window(layer: Layer) -> tuple[list[int], list[int], list[int]]:
    kernel, pads, strides = (layer.pair("pooling_param", name) for name in ("kernel_size", "pad", "stride"))
    if 0 in strides or 0 in kernel:
        raise layer.error(f"kernel {kernel} and stride {strides} must be 1 or more")
    if any(pad >= k for pad, k in zip(pads, kernel, strict=True)):
        raise layer.error(f"pads {pads} must be smaller than the kernel {kernel}")
    return kernel, strides, pads


def output_size(size: int, kernel: int, stride: int, pad: int, ceil: bool, clip: bool) -> int:
    """Caffe's pooled size: rounded up (or down), and with any padding no window may start beyond image and pad."""
    steps = (size + 2 * pad - kernel) / stride
    output = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    if clip and (output - 1) * stride >= size + pad:
        output -= 1
    return output


def _global(op: Builder, layer: Layer, x: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    p, shape = layer.pooling_param, op.shape(x)
    if {"kernel_size", "kernel_h", "kernel_w"} & p.given:
        raise layer.error("global_pooling takes no kernel size")
    if layer.pair("pooling_param", "pad") != [0, 0] or layer.pair("pooling_param", "stride") != [1, 1]:
        raise layer.error("global_pooling takes no pad and no stride")
    if p.pool == "AVE":
        return op.GlobalAveragePool(x)
    if layer.top_count == 1:
        return op.GlobalMaxPool(x)
    flat = op.reshape(x, [shape[0], shape[1], -1])
    place = op.Unsqueeze(op.ArgMax(flat, axis=2, keepdims=1), [3])
    return op.GlobalMaxPool(x), op.cast(place, x)


def _caffe_divisor(
    op: Builder, y: ir.Value, shape: tuple, kernel: list[int], strides: list[int], pads: list[int], outputs: list[int]
) -> ir.Value:
    """Caffe divides by the part of the window that lies within image and pad, ONNX by all of it.

    A window that starts where the image ends has no such part: Caffe divides 0 by 0 there, and here 0 · inf is as NaN.
    """
    lengths = []
    for size, k, s, pad, out in zip(shape[2:], kernel, strides, pads, outputs, strict=True):
        starts = np.arange(out) * s - pad
        lengths.append(np.minimum(starts + k, size + pad) - starts)
    areas = np.outer(*lengths)
    if np.all(areas == math.prod(kernel)):
        return y
    with np.errstate(divide="ignore"):
        correction = math.prod(kernel) / areas
    return op.Mul(y, correction.reshape(1, 1, *areas.shape))
