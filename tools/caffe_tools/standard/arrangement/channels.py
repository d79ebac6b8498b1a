"""Channels that change places with each other (ShuffleChannel of ShuffleNet), or with pixels (Reorg of YOLO v2).

Source: farmingyard/ShuffleNet shuffle_channel_layer.cpp; caffe-yolov2 src/caffe/layers/reorg_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("ShuffleChannel", moves=True, shuffle_channel_param={"group": UInt(1)})
def shuffle_channel(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """Channel g · (C / group) + c becomes channel c · group + g."""
    group, shape = layer.shuffle_channel_param.group, layer.expect_axes(0, x, 2, math.inf)
    batch, channels, *rest = shape
    if not group or channels % group:
        raise layer.error(f"group {group} must divide the {channels} channels of the bottom", "shuffle_channel_param")
    parted = op.reshape(x, [batch, group, channels // group, *rest])
    order = [0, 2, 1, *range(3, len(shape) + 1)]
    return op.reshape(op.Transpose(parted, perm=order), shape)


@layer_type("Reorg", moves=True, reorg_param={"stride": UInt(), "reverse": Bool(False)})
def reorg(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """Pixels to channels: N × C × H × W becomes N × C·s² × H/s × W/s (``reverse``: channels to pixels), s = ``stride``.

    As in Darknet the elements are counted through a C/s² × H·s × W·s image, so that they do not stay where they are:
    each s × s block of *that* image goes to s² groups of channels.
    """
    p, shape = layer.reorg_param, layer.expect_axes(0, x, 4)
    if not p.stride:
        raise layer.error("stride is missing or 0", "reorg_param")
    stride, channels = p.stride, shape[1]
    if channels % stride**2 or any(isinstance(dim, int) and dim % stride and not p.reverse for dim in shape[2:]):
        raise layer.misfit(0, shape, f": stride {stride} must divide height and width, and its square the channels")
    if p.reverse:
        return op.DepthToSpace(x, blocksize=stride, mode="DCR")
    batch, size = op.dims(x, [0]), op.dims(x, [2, 3])
    wide = op.Reshape(x, op.Concat(batch, op.constant([channels // stride**2]), op.Mul(size, stride), axis=0))
    blocks = op.SpaceToDepth(wide, blocksize=stride)
    y = op.Reshape(blocks, op.Concat(batch, op.constant([channels * stride**2]), op.Div(size, stride), axis=0))
    inferred = op.shape(y)[2:]
    known = [dim // stride if isinstance(dim, int) else name for dim, name in zip(shape[2:], inferred, strict=True)]
    y.shape = ir.Shape([shape[0], channels * stride**2, *known])
    return y
