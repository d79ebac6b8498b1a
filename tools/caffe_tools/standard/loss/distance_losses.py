"""EuclideanLoss, HingeLoss and ContrastiveLoss. They use Caffe's old N/C/H/W view, hence at most 4 axes.

Source: Caffe src/caffe/layers/euclidean_loss_layer.cpp, hinge_loss_layer.cpp, contrastive_loss_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, Float
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.loss.labels import check_batch, row_labels, rows
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, layer_type


@layer_type("EuclideanLoss", bottoms=2, is_loss=True)
def euclidean_loss(op: Builder, layer: Layer, x: ir.Value, target: ir.Value) -> ir.Value:
    """Σ (x − target)² / 2N. Both bottoms get a gradient."""
    a, b = rows(op, layer, 0, x), rows(op, layer, 1, target)
    layer.expect_shape(1, b, op.shape(a), "both bottoms have as many elements in each row")
    difference = op.Sub(a, b)
    return op.Div(op.ReduceSumSquare(difference, keepdims=0), op.Mul(op.count(x, [0]), 2))


@layer_type(
    "HingeLoss",
    bottoms=2,
    is_loss=True,
    labels={1: CLASS_INDEX},
    hinge_loss_param={"norm": Enum(numbers={"L1": 1, "L2": 2})},
)
def hinge_loss(op: Builder, layer: Layer, x: ir.Value, label: ir.Value) -> ir.Value:
    """Σ max(0, 1 − s·x)^p / N over all classes: s = 1 for the label's class and −1 for the others, p = 1 (L1) or 2."""
    table = rows(op, layer, 0, x)
    check_batch(op, layer, x, label)
    labels = op.Squeeze(row_labels(op, layer, 1, table, label), [1])
    classes = op.shape(table)[1]
    layer.expect_labels(1, classes)
    signs = op.OneHot(labels, classes, op.constant([1.0, -1.0], x.dtype.numpy()), axis=1)
    margins = op.Relu(op.Add(op.Mul(table, signs), 1))
    sum_ = op.ReduceSum if layer.hinge_loss_param.norm == "L1" else op.ReduceSumSquare
    return op.Div(sum_(margins, keepdims=0), op.count(x, [0]))


@layer_type(
    "ContrastiveLoss",
    bottoms=3,
    is_loss=True,
    labels={2: BINARY},
    contrastive_loss_param={"margin": Float(1.0), "legacy_version": Bool(False)},
)
def contrastive_loss(op: Builder, layer: Layer, a: ir.Value, b: ir.Value, similar: ir.Value) -> ir.Value:
    """Σ d² over similar pairs + Σ max(margin − d, 0)² over the others, / 2N, with d the distance of a pair.

    The legacy version takes max(margin − d², 0) for the others. Caffe's gradient divides by d + 1e-4, not by d.
    """
    p = layer.contrastive_loss_param
    left, right = rows(op, layer, 0, a), rows(op, layer, 1, b)
    layer.expect_shape(1, right, op.shape(left), "both bottoms of a pair have one shape")
    difference = op.Sub(left, right)
    if any(dim != 1 for dim in op.shape(a)[2:]):
        raise layer.misfit(0, a, ": it takes vectors")
    is_similar = op.Not(op.Equal(row_labels(op, layer, 2, left, similar), 0))
    squared = op.ReduceSumSquare(difference, [1], keepdims=1)
    if p.legacy_version:
        gap = op.Sub(p.margin, squared)
        apart = op.Relu(gap)
    else:
        distance = op.Sqrt(squared)
        gap = op.Sub(p.margin, distance)
        apart = op.Relu(gap)
        apart = op.Mul(apart, apart)
    count = op.count(a, [0])
    loss = op.Div(op.ReduceSum(op.Where(is_similar, squared, apart), keepdims=0), op.Mul(count, 2))

    def gradient(dloss: ir.Value) -> list[ir.Value]:
        pushed = op.constant(1.0, a.dtype.numpy()) if p.legacy_version else op.Div(gap, op.Add(distance, 1e-4))
        pushed = op.Where(op.Greater(gap, 0), op.Neg(pushed), 0)
        scale = op.Mul(op.Where(is_similar, 1.0, pushed), op.Div(dloss, count))
        diff = op.reshape(op.Mul(difference, scale), op.shape(a))
        return [diff, op.Neg(diff)]

    op.define_gradient([loss], [a, b], gradient)
    return loss
