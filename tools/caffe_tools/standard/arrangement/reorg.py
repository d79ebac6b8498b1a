"""Reorg and Region: the pass-through and the last layer of YOLO v2.

Source: caffe-yolov2 src/caffe/layers/reorg_layer.cpp; OpenVINO's training_toolbox_caffe
src/caffe/layers/region_layer.cpp.
"""

from __future__ import annotations

import onnx_ir as ir

from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Int, Repeated, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("Reorg", reorg_param={"stride": UInt(), "reverse": Bool(False)})
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


@layer_type(
    "Region",
    region_param={
        "classes": UInt(20),
        "coords": UInt(4),
        "num": UInt(5),
        "do_softmax": Bool(True),
        "anchors": Repeated(Float()),
        "mask": Repeated(Int()),
        "axis": Int(1),
        "end_axis": Int(-1),
    },
)
def region(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The bottom with its activations: of each of ``num`` boxes x, y and objectness by a sigmoid, classes by a softmax.

    A box has ``coords`` channels, of which those behind x and y stay as they are, one of objectness, and one for each
    of ``classes`` (sigmoids too without ``do_softmax``). Who reads them adds anchors and NMS. No gradient passes.
    """
    p, shape = layer.region_param, op.shape(x)
    each = p.coords + 1 + p.classes
    if len(shape) != 4 or shape[1] != p.num * each or p.coords < 2 or not p.classes:
        raise layer.misfit(
            0, shape, f", but {p.num} boxes of {p.coords} coords and {p.classes} classes need N×{p.num * each}×H×W"
        )
    boxes = op.reshape(x, [shape[0], p.num, each, *shape[2:]])
    center, size, objectness, classes = op.Split(boxes, [2, p.coords - 2, 1, p.classes], axis=2, outputs=4)
    classes = op.Softmax(classes, axis=2) if p.do_softmax else op.Sigmoid(classes)
    y = op.Concat(op.Sigmoid(center), size, op.Sigmoid(objectness), classes, axis=2)
    return op.without_gradient(op.reshape(y, shape), x)
