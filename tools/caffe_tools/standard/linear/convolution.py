"""Convolution and Deconvolution over any number of spatial axes, and Im2col, which lays out their windows.

Source: Caffe src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp, deconv_layer.cpp, im2col_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Int, Repeated, UInt
from caffe_tools.prototxt.messages import ENGINE, WEIGHT_AND_BIAS
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.limits import expect_size
from caffe_tools.standard.registry import layer_type

CONVOLUTION_PARAM = {
    "num_output": UInt(),
    **WEIGHT_AND_BIAS,
    "pad": Repeated(UInt()),
    "kernel_size": Repeated(UInt()),
    "stride": Repeated(UInt()),
    "dilation": Repeated(UInt()),
    "pad_h": UInt(0),
    "pad_w": UInt(0),
    "kernel_h": UInt(),
    "kernel_w": UInt(),
    "stride_h": UInt(),
    "stride_w": UInt(),
    "group": UInt(1),
    "engine": ENGINE,
    "axis": Int(1),
    "force_nd_im2col": Bool(False),
}


def spatial(layer: Layer, name: str, count: int, default: int | None) -> list[int]:
    """One number for each of ``count`` spatial axes, from ``name`` or from its forms for two, ``_h`` and ``_w``."""
    p = layer.convolution_param
    short = "kernel" if name == "kernel_size" else name
    pair = (f"{short}_h", f"{short}_w")
    if any(part in p.given for part in pair):
        if count != 2:
            raise layer.error(f"{pair[0]} and {pair[1]} serve 2 spatial axes, the bottom has {count}: give {name}")
        if getattr(p, name):
            raise layer.error(f"give {name} or {pair[0]} and {pair[1]}, not both")
        values = [getattr(p, part) for part in pair]
        if None in values:
            raise layer.error(f"give both {pair[0]} and {pair[1]}")
    else:
        values = list(getattr(p, name)) or [default]
        if values == [None]:
            raise layer.error(f"{name} is missing: give {name}, or {pair[0]} and {pair[1]}")
        if len(values) not in (1, count):
            raise layer.error(f"{name} is given {len(values)} times for {count} spatial axes: give it once or for each")
        values = values * count if len(values) == 1 else values
    if name != "pad" and 0 in values:
        raise layer.error(f"{name} must be 1 or more")
    return values


@dataclass(frozen=True)
class Window:
    """The windows of a convolution, one number for each spatial axis, and the axis where the channels stand."""

    axis: int
    kernel: list[int]
    strides: list[int]
    pads: list[int]
    dilations: list[int]

    @property
    def attributes(self) -> dict[str, list[int]]:
        """As attributes of an ONNX convolution."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads * 2,
            "dilations": self.dilations,
        }

    @property
    def reach(self) -> list[int]:
        """The extent of the dilated kernel."""
        return [(k - 1) * dilation + 1 for k, dilation in zip(self.kernel, self.dilations, strict=True)]


def window_of(op: Builder, layer: Layer, bottoms: tuple[ir.Value, ...]) -> Window:
    """The layer's windows; NetError where its parameters or its bottoms' shapes do not go together."""
    p, shape = layer.convolution_param, op.shape(bottoms[0])
    if layer.top_count != len(bottoms):
        raise layer.error(f"it has {len(bottoms)} bottoms and {layer.top_count} tops: it takes one top for each bottom")
    axis = layer.axis(p.axis, bottoms[0])
    count = len(shape) - axis - 1
    if count < 1:
        raise layer.misfit(0, shape, f": it needs spatial axes behind the channels on axis {axis}")
    if not isinstance(shape[axis], int):
        raise layer.error(f"the number of channels (axis {axis}) must be fixed")
    for index, x in enumerate(bottoms):
        layer.expect_shape(index, x, shape, f"all bottoms of {layer.spec.type} have one shape")
    return Window(
        axis,
        kernel=spatial(layer, "kernel_size", count, None),
        strides=spatial(layer, "stride", count, 1),
        pads=spatial(layer, "pad", count, 0),
        dilations=spatial(layer, "dilation", count, 1),
    )


def _outputs(layer: Layer, channels: int) -> int:
    """num_output; NetError where it, or the bottom's channels, cannot be parted in groups."""
    p = layer.convolution_param
    if not p.num_output:
        raise layer.error("num_output is missing or 0")
    if p.group < 1 or channels % p.group or p.num_output % p.group:
        raise layer.error(
            f"group {p.group} must divide the {channels} channels of the bottom and num_output {p.num_output}"
        )
    return p.num_output


def check_reach(layer: Layer, window: Window, shape: tuple) -> None:
    for axis, reach in enumerate(window.reach):
        dim, pad = shape[window.axis + 1 + axis], window.pads[axis]
        if isinstance(dim, int) and dim + 2 * pad < reach:
            raise layer.error(
                f"its kernel reaches over {reach} elements, but axis {window.axis + 1 + axis} of bottom"
                f" {layer.spec.bottoms[0]!r} has {dim} and pads of {pad}"
            )


def _each_image(op: Builder, x: ir.Value, window: Window, function: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """``function``, which takes images × channels × …, over a blob with any number of axes before the channels."""
    axis, shape = window.axis, op.shape(x)
    if axis == 1:
        return function(x)
    if axis == 0:
        return op.Squeeze(function(op.Unsqueeze(x, [0])), [0])
    y = function(op.reshape(x, [-1, *shape[axis:]]))
    dims = [*shape[:axis], *op.shape(y)[1:]]
    if all(isinstance(dim, int) for dim in dims):
        return op.reshape(y, dims)
    y = op.Reshape(y, op.Concat(op.dims(x, range(axis)), op.dims(y, range(1, len(op.shape(y)))), axis=0))
    y.shape = ir.Shape(dims)
    return y


def keep_dims(op: Builder, x: ir.Value, y: ir.Value, window: Window) -> ir.Value:
    """Where a convolution leaves a symbolic dim as it is, ``y`` has it under the same name."""
    dims = list(op.shape(y))
    for i, (reach, stride, pad) in enumerate(zip(window.reach, window.strides, window.pads, strict=True)):
        if stride == 1 and reach == 2 * pad + 1:
            dims[2 + i] = op.shape(x)[2 + i]
    y.shape = ir.Shape(dims)
    return y


@layer_type(
    "Convolution", bottoms=(1, None), tops=(1, None), output_axis=lambda layer: 0, convolution_param=CONVOLUTION_PARAM
)
def convolution(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Each bottom convolved with the same weight (num_output × channels/group × kernel) and bias."""
    p, window = layer.convolution_param, window_of(op, layer, bottoms)
    channels = op.shape(bottoms[0])[window.axis]
    outputs = _outputs(layer, channels)
    check_reach(layer, window, op.shape(bottoms[0]))
    weight, bias = layer.weight_and_bias(p, (outputs, channels // p.group, *window.kernel), outputs)

    def convolve(images: ir.Value) -> ir.Value:
        return keep_dims(op, images, op.Conv(images, weight, bias, **window.attributes, group=p.group), window)

    return tuple(_each_image(op, x, window, convolve) for x in bottoms)


@layer_type("Deconvolution", bottoms=(1, None), tops=(1, None), convolution_param=CONVOLUTION_PARAM)
def deconvolution(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Each bottom's elements spread by the same weight (channels × num_output/group × kernel), plus the bias.

    It is the gradient of a Convolution by its bottom, so an axis grows to stride · (size − 1) + kernel − 2 · pad.
    """
    p, window, shape = layer.convolution_param, window_of(op, layer, bottoms), op.shape(bottoms[0])
    channels = shape[window.axis]
    outputs = _outputs(layer, channels)
    for axis, (dim, reach) in enumerate(zip(shape[window.axis + 1 :], window.reach, strict=True)):
        stride, pad = window.strides[axis], window.pads[axis]
        if isinstance(dim, int) and stride * (dim - 1) + reach - 2 * pad < 1:
            raise layer.error(
                f"a pad of {pad} leaves nothing of axis {window.axis + 1 + axis} of its top: the bottom"
                f" {layer.spec.bottoms[0]!r} has {dim} elements there, the kernel reaches over {reach}"
            )
    weight, bias = layer.weight_and_bias(p, (channels, outputs // p.group, *window.kernel), outputs)

    def spread(images: ir.Value) -> ir.Value:
        return op.ConvTranspose(images, weight, bias, **window.attributes, group=p.group)

    return tuple(_each_image(op, x, window, spread) for x in bottoms)


@layer_type("Im2col", bottoms=(1, None), tops=(1, None), convolution_param=CONVOLUTION_PARAM)
def im2col(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """The elements of each window as channels: channel c · kernel + k is element k of the window over channel c."""
    window, shape = window_of(op, layer, bottoms), op.shape(bottoms[0])
    check_reach(layer, window, shape)
    channels, size = shape[window.axis], math.prod(window.kernel)
    # a convolution, channel by channel, with kernels that each pick one element
    expect_size(layer.spec, "what picks its elements", (channels, size, size))
    pick = np.eye(size).reshape(size, 1, *window.kernel)
    weight = op.constant(np.tile(pick, (channels, *[1] * (pick.ndim - 1))), bottoms[0].dtype.numpy())

    def lay_out(images: ir.Value) -> ir.Value:
        return op.Conv(images, weight, **window.attributes, group=channels)

    return tuple(_each_image(op, x, window, lay_out) for x in bottoms)
