"""Region: the last layer of YOLO v2.

Source: OpenVINO's training_toolbox_caffe src/caffe/layers/region_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Int, Repeated, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


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
