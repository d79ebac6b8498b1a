"""ShuffleChannel: channels of one group dealt out to all groups (ShuffleNet).

Source: farmingyard/ShuffleNet shuffle_channel_layer.cpp.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("ShuffleChannel", shuffle_channel_param={"group": UInt(1)})
def shuffle_channel(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """Channel g · (C / group) + c becomes channel c · group + g."""
    group, shape = layer.shuffle_channel_param.group, layer.expect_axes(0, x, 2, math.inf)
    batch, channels, *rest = shape
    if not group or channels % group:
        raise layer.error(f"group {group} must divide the {channels} channels of the bottom", "shuffle_channel_param")
    parted = op.reshape(x, [batch, group, channels // group, *rest])
    order = [0, 2, 1, *range(3, len(shape) + 1)]
    return op.reshape(op.Transpose(parted, perm=order), shape)
