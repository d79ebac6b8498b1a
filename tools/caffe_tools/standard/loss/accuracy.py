"""Accuracy: the share of positions whose true class is among the top_k scores.

Source: Caffe src/caffe/layers/accuracy_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.loss.labels import position_labels
from caffe_tools.standard.registry import CLASS_INDEX, REAL, layer_type


@layer_type(
    "Accuracy",
    bottoms=2,
    tops=(1, 2),
    labels={0: REAL, 1: CLASS_INDEX},
    accuracy_param={"top_k": UInt(1), "axis": Int(1), "ignore_label": Int()},
)
def accuracy(op: Builder, layer: Layer, scores: ir.Value, label: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    """A score equal to the true class's counts as better, so ties lose; without a valid label the result is 0.

    Second top: the accuracy of each class (0 for a class that does not occur).
    """
    p, shape = layer.accuracy_param, op.shape(scores)
    axis = layer.axis(p.axis, scores)
    classes = shape[axis]
    if not isinstance(classes, int) or not 1 <= p.top_k <= classes:
        raise layer.error(f"top_k {p.top_k} must be 1 to {classes}, the number of classes")
    labels = position_labels(op, layer, scores, label, axis, p.ignore_label)
    mask = None if p.ignore_label is None else op.Not(op.Equal(labels, p.ignore_label))
    known = labels if mask is None else op.Where(mask, labels, 0)
    true_score = op.GatherElements(scores, known, axis=axis)
    not_worse = op.cast(op.GreaterOrEqual(scores, true_score), scores)
    right = op.LessOrEqual(op.ReduceSum(not_worse, [axis], keepdims=1), float(p.top_k))
    right = op.cast(right if mask is None else op.And(right, mask), scores)
    counted = op.count(labels) if mask is None else op.ReduceSum(op.cast(mask, scores), keepdims=0)
    counted = op.cast(counted, scores)
    overall = op.Div(op.ReduceSum(right, keepdims=0), op.Max(counted, 1))
    if layer.top_count == 1:
        return overall
    members = op.OneHot(op.Squeeze(known, [axis]), classes, op.constant([0.0, 1.0], scores.dtype.numpy()), axis=axis)
    if mask is not None:
        members = op.Where(mask, members, 0)
    others = [other for other in range(len(shape)) if other != axis]
    found = op.ReduceSum(op.Mul(members, right), others, keepdims=0)
    return overall, op.Div(found, op.Max(op.ReduceSum(members, others, keepdims=0), 1))
