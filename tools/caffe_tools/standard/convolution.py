"""Convolution over any number of spatial axes.

Source: Caffe src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp.
"""

from __future__ import annotations

import onnx_ir as ir

from caffe_tools.fields import Bool, Enum, Int, Repeated, Submessage, UInt
from caffe_tools.fillers import FILLER
from caffe_tools.graph import Builder
from caffe_tools.standard.registry import Layer, expect_shape, layer_type

CONVOLUTION_PARAM = {
    "num_output": UInt(),
    "bias_term": Bool(True),
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
    "weight_filler": Submessage(FILLER),
    "bias_filler": Submessage(FILLER),
    "engine": Enum("DEFAULT", "CAFFE", "CUDNN"),
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


@layer_type("Convolution", bottoms=(1, None), tops=(1, None), convolution_param=CONVOLUTION_PARAM)
def convolution(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Each bottom convolved with the same weight (num_output × channels/group × kernel) and bias."""
    p, shape = layer.convolution_param, op.shape(bottoms[0])
    if layer.top_count != len(bottoms):
        raise layer.error(f"it has {len(bottoms)} bottoms and {layer.top_count} tops: it takes one top for each bottom")
    if layer.axis(p.axis, bottoms[0]) != 1:
        raise layer.error(f"axis {p.axis} is not covered: channels must stand on axis 1")
    count = len(shape) - 2
    if count < 1:
        raise layer.error(f"bottom {layer.spec.bottoms[0]!r} has the shape {shape}: it needs spatial axes")
    kernel = spatial(layer, "kernel_size", count, None)
    strides, pads = spatial(layer, "stride", count, 1), spatial(layer, "pad", count, 0)
    dilations = spatial(layer, "dilation", count, 1) if p.dilation else [1] * count
    outputs, group, channels = p.num_output or 0, p.group, shape[1]
    if outputs < 1:
        raise layer.error("num_output is missing or 0")
    if group < 1 or channels % group or outputs % group:
        raise layer.error(f"group {group} must divide the {channels} channels of the bottom and num_output {outputs}")
    _check_reach(layer, shape, kernel, dilations, pads)
    weight = layer.parameter((outputs, channels // group, *kernel), p.weight_filler)
    bias = layer.parameter((outputs,), p.bias_filler) if p.bias_term else None
    tops = []
    for index, x in enumerate(bottoms):
        expect_shape(layer, index, op.shape(x), shape, "all bottoms of a convolution have one shape")
        tops.append(
            op.Conv(
                x, weight, bias, kernel_shape=kernel, strides=strides, pads=pads * 2, dilations=dilations, group=group
            )
        )
    return tuple(tops)


def _check_reach(layer: Layer, shape: tuple, kernel: list[int], dilations: list[int], pads: list[int]) -> None:
    for axis, dim in enumerate(shape[2:]):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if isinstance(dim, int) and dim + 2 * pads[axis] < reach:
            raise layer.error(
                f"its kernel reaches over {reach} elements, but axis {axis + 2} of bottom"
                f" {layer.spec.bottoms[0]!r} has {dim} and pads of {pads[axis]}"
            )

