"""SoftmaxWithLoss, InfogainLoss and MultinomialLogisticLoss: −log of the true class's probability.

Source: Caffe src/caffe/layers/softmax_loss_layer.cpp, infogain_loss_layer.cpp, multinomial_logistic_loss_layer.cpp.
"""

from __future__ import annotations

import os

from caffe_tools.binaryproto import caffemodel
from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import same_count
from caffe_tools.prototxt.fields import Int, String
from caffe_tools.prototxt.messages import ENGINE, LOSS_PARAM
from caffe_tools.standard.layer import FLT_MIN, Layer, dims_text
from caffe_tools.standard.loss.labels import check_batch, position_labels, row_labels, rows
from caffe_tools.standard.loss.normalization import counted, divisor
from caffe_tools.standard.registry import CLASS_INDEX, REAL, layer_type

LOG_THRESHOLD = 1e-20
"""The floor under probabilities in InfogainLoss and MultinomialLogisticLoss (kLOG_THRESHOLD)."""


@layer_type(
    "SoftmaxWithLoss",
    bottoms=2,
    tops=(1, 2),
    is_loss=True,
    labels={1: CLASS_INDEX},
    softmax_param={"engine": ENGINE, "axis": Int(1)},
    loss_param=LOSS_PARAM,
)
def softmax_with_loss(op: Builder, layer: Layer, scores: ir.Value, label: ir.Value) -> tuple[ir.Value, ...]:
    """−Σ log max(softmax(scores)[label], FLT_MIN) / divisor; the gradient knows no floor. Second top: probabilities."""
    axis = layer.axis(layer.softmax_param.axis, scores)
    labels, mask, known = _checked_labels(op, layer, scores, label, axis)
    probability = op.Softmax(scores, axis=axis)
    picked = op.GatherElements(probability, known, axis=axis)
    losses = op.Neg(op.Log(op.Max(picked, FLT_MIN)))
    if mask is not None:
        losses = op.Where(mask, losses, 0)
    total = divisor(op, layer, scores, "VALID", range(axis), labels, mask)
    loss = op.Div(op.ReduceSum(losses, keepdims=0), total)

    def gradient(dloss: ir.Value | None, dprobability: ir.Value | None = None) -> list[ir.Value | None]:
        # (probability − one-hot) · dloss / divisor; Caffe sends nothing back through the second top
        if dloss is None:
            return [None]
        difference = op.ScatterElements(probability, known, op.Sub(picked, 1), axis=axis)
        scale = op.Div(dloss, total)
        return [op.Mul(difference, scale if mask is None else op.Where(mask, scale, 0))]

    tops = (loss, probability)[: layer.top_count]
    op.define_gradient(tops, [scores], gradient)
    return tops


@layer_type(
    "InfogainLoss",
    bottoms=(2, 3),
    tops=(1, 2),
    is_loss=True,
    labels={1: CLASS_INDEX, 2: REAL},
    infogain_loss_param={"source": String(), "axis": Int(1)},
    loss_param=LOSS_PARAM,
)
def infogain_loss(op: Builder, layer: Layer, scores: ir.Value, label: ir.Value, *matrix: ir.Value) -> tuple:
    """−Σ_k H[label, k] · log max(softmax(scores)_k, 1e-20) / divisor, with H the third bottom or read from ``source``.

    Second top: the probabilities.
    """
    p, rank = layer.infogain_loss_param, len(op.shape(scores))
    if layer.loss_param.normalize is not None:
        raise layer.error("InfogainLoss takes normalization, not the older normalize")
    axis = layer.axis(p.axis, scores)
    classes = op.shape(scores)[axis]
    labels, mask, known = _checked_labels(op, layer, scores, label, axis)
    gains = _infogain_matrix(op, layer, classes, *matrix)
    probability = op.Softmax(scores, axis=axis)
    # one row of H for each position, its classes moved to the scores' axis
    gain = op.Gather(gains, op.Squeeze(known, [axis]), axis=0)
    gain = op.Transpose(gain, perm=[*range(axis), rank - 1, *range(axis, rank - 1)])
    if mask is not None:
        gain = op.Where(mask, gain, 0)
    total = divisor(op, layer, scores, "VALID", range(axis), labels, mask)
    logarithm = op.Log(op.Max(probability, LOG_THRESHOLD))
    loss = op.Div(op.Neg(op.ReduceSum(op.Mul(gain, logarithm), keepdims=0)), total)

    def gradient(dloss: ir.Value | None, dprobability: ir.Value | None = None) -> list[ir.Value | None]:
        # (probability_k · Σ_j H[label, j] − H[label, k]) · dloss / divisor
        if dloss is None:
            return [None]
        gain_sums = op.ReduceSum(gain, [axis], keepdims=1)
        return [op.Mul(op.Sub(op.Mul(probability, gain_sums), gain), op.Div(dloss, total))]

    tops = (loss, probability)[: layer.top_count]
    op.define_gradient(tops, [scores], gradient)
    return tops


def _checked_labels(
    op: Builder, layer: Layer, scores: ir.Value, label: ir.Value, axis: int
) -> tuple[ir.Value, ir.Value | None, ir.Value]:
    """The label of each position, whether it counts (None: all do), and the label with 0 where it does not."""
    check_batch(op, layer, scores, label)
    labels = position_labels(op, layer, scores, label, axis, layer.loss_param.ignore_label)
    mask = counted(op, layer, labels)
    return labels, mask, labels if mask is None else op.Where(mask, labels, 0)


def _infogain_matrix(op: Builder, layer: Layer, classes: int, *bottom: ir.Value) -> ir.Value:
    if bottom:
        matrix, shape = bottom[0], op.shape(bottom[0])
        name = f"bottom {layer.spec.bottoms[2]!r}"
    else:
        source = layer.infogain_loss_param.source
        if source is None:
            raise layer.error("the infogain matrix is missing: give it as third bottom, or as source of its param")
        path = layer.path(source)
        if not os.path.exists(path):
            raise layer.error(f"the infogain matrix {source} is not there")
        array = caffemodel.read_blob(path)
        matrix, shape, name = op.initializer(f"{layer.name}/infogain", array), array.shape, source
    if not same_count(shape, [classes, classes]):
        raise layer.error(f"{name} has the shape {dims_text(shape)}, but the infogain matrix is {classes}×{classes}")
    return op.reshape(matrix, [classes, classes])


@layer_type("MultinomialLogisticLoss", bottoms=2, is_loss=True, labels={1: CLASS_INDEX}, probabilities=0)
def multinomial_logistic_loss(op: Builder, layer: Layer, probability: ir.Value, label: ir.Value) -> ir.Value:
    """−(1/N) Σ log max(probability[label], 1e-20); the gradient divides by the same floored probability."""
    table = rows(op, layer, 0, probability)
    check_batch(op, layer, probability, label)
    labels = row_labels(op, layer, 1, table, label)
    layer.expect_labels(1, op.shape(table)[1])
    floored = op.Max(op.GatherElements(table, labels, axis=1), LOG_THRESHOLD)
    count = op.count(probability, [0])
    loss = op.Div(op.Neg(op.ReduceSum(op.Log(floored), keepdims=0)), count)

    def gradient(dloss: ir.Value) -> list[ir.Value]:
        picked = op.Div(op.Neg(op.Div(dloss, count)), floored)
        return [op.reshape(op.ScatterElements(op.zeros(table), labels, picked, axis=1), op.shape(probability))]

    op.define_gradient([loss], [probability], gradient)
    return loss
