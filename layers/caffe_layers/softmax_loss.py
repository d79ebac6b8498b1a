"""Softmax loss: the cross-entropy of the softmax of the scores with a label, a distribution or many labels."""

from __future__ import annotations

import numpy as np

from caffe_layers import positionwise
from caffe_layers.loss import HIGHEST, LossLayer, loss_and_gradient, product
from caffe_layers.softmax import exponentials


def softmax_loss(
    scores,
    labels,
    weights=None,
    *,
    axis=1,
    target="index",
    ignore_label=None,
    normalization=None,
    normalize=None,
    class_weight=None,
    label_smoothing=0.0,
    background_label=0,
):
    """The softmax loss of ``scores`` and its gradient: (float, array of the scores' shape and dtype).

    The definition and the keywords are those of :class:`SoftmaxLossLayer`. ``scores`` are float32 or float64;
    ``labels`` and ``weights`` of any real dtype. Raises ShapeError, LabelError, ParameterError.
    """
    return loss_and_gradient(
        "softmax_loss",
        SoftmaxLossLayer,
        scores,
        labels,
        weights,
        dict(
            axis=axis,
            target=target,
            ignore_label=ignore_label,
            normalization=normalization,
            normalize=normalize,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            background_label=background_label,
        ),
    )


def index_block(x, channel, coefficient, gradient, probabilities, modulate=None):
    """loss = -log p_t, dloss/dx_c = p_c - [c = t]; see positionwise.py.

    ``modulate(1 - p_t, -log p_t)`` gives another function of them and its derivative by -log p_t.
    """
    e = np.empty_like(x) if gradient is None else gradient
    largest, tail = exponentials(x, out=e)
    total = 1 + tail
    _write_probabilities(e, total, probabilities)
    e_t = _pick(e, channel)
    others = tail + (1 - e_t)
    losses = np.log1p(tail) + (largest - _pick(x, channel))
    slope = 1.0
    if modulate is not None:
        losses, slope = modulate(others / total, losses)
    if gradient is not None:
        slope = coefficient * slope / total
        gradient *= slope[:, None].astype(x.dtype)
        np.put_along_axis(gradient, channel[:, None], (-slope * others)[:, None].astype(x.dtype), axis=1)
    return losses * coefficient


def dense_block(x, target, coefficient, gradient, probabilities):
    """loss = -sum_c t_c log p_c, dloss/dx_c = p_c sum_k t_k - t_c; see positionwise.py."""
    e = np.empty_like(x) if gradient is None else gradient
    largest, tail = exponentials(x, out=e)
    total = 1 + tail
    _write_probabilities(e, total, probabilities)
    mass = target.sum(axis=1, dtype=np.float64)
    below = np.subtract(largest[:, None].astype(x.dtype), x)
    # The distance of two finite scores can be more than the dtype holds, and 0 times infinity is no number.
    np.minimum(below, np.finfo(x.dtype).max, out=below)
    losses = mass * np.log1p(tail) + np.einsum("ncs,ncs->ns", target, below, dtype=np.float64)
    if gradient is not None:
        gradient *= (coefficient * mass / total)[:, None].astype(x.dtype)
        gradient -= target * coefficient[:, None].astype(x.dtype)
    return losses * coefficient


def _pick(values, channel):
    return np.take_along_axis(values, channel[:, None], axis=1)[:, 0].astype(np.float64)


def _write_probabilities(e, total, probabilities):
    if probabilities is not None:
        np.multiply(e, (1 / total)[:, None].astype(e.dtype), out=probabilities)


def onnx_softmax_loss(op, layer, scores, target, modulate=None):
    """The layer's top or tops; ``modulate(op, 1 - p_t, -log p_t)`` is as in :func:`index_block`, its slope None for 1.

    Written out rather than with LogSoftmax, which onnx defines as the Log of a Softmax that can be 0.
    """
    axis = target.axis
    below = op.Sub(op.ReduceMax(scores, [axis], keepdims=1), scores)
    e = op.Exp(op.Neg(below))
    total = op.ReduceSum(e, [axis], keepdims=1)
    slope = None
    if target.channel is not None:
        below_t = op.GatherElements(below, target.channel, axis=axis)
        others = op.Sub(total, op.Exp(op.Neg(below_t)))
        losses = op.Min(op.Add(op.Log(total), below_t), HIGHEST)
        if modulate is not None:
            losses, slope = modulate(op, op.Div(others, total), losses)
    else:
        mass = op.ReduceSum(target.values, [axis], keepdims=1)
        weighted = op.ReduceSum(op.Mul(target.values, op.Min(below, HIGHEST)), [axis], keepdims=1)
        losses = op.Add(op.Mul(mass, op.Log(total)), weighted)
    tops = [positionwise.onnx_loss(op, target, losses)]
    if layer.top_count > 1:
        tops.append(op.Div(e, total))

    def gradient(loss_diff, probabilities_diff=None):
        if loss_diff is None:
            return [None]
        scale = product(op, loss_diff, target.factor, target.coefficient, slope)
        if target.channel is None:
            return [op.Sub(op.Mul(e, op.Div(op.Mul(scale, mass), total)), op.Mul(target.values, scale))]
        scale = op.Div(scale, total)
        labelled = op.Neg(op.Mul(others, scale))
        return [op.ScatterElements(op.Mul(e, scale), target.channel, labelled, axis=axis)]

    op.define_gradient(tops, [scores], gradient)
    return tuple(tops)


class SoftmaxLossLayer(LossLayer):
    """Softmax and cross-entropy in one (categorical cross-entropy, softmax loss).

    With x the scores of a position, t its target (a label is a one-hot t) and w its weight (bottom[2], default 1)::

        p_c  = exp(x_c) / sum_k exp(x_k)
        loss = 1 / divisor  x  sum over positions of  w sum_c class_weight_c t'_c (-log p_c)
        dx_c = 1 / divisor  x  w (p_c sum_k class_weight_k t'_k - class_weight_c t'_c)

        t'_c = (1 - eps) t_c + eps / C       index, distribution
        t'_c = (1 - eps) t_c / M + eps / C   multi_label: M is the number of t_c that are not 0; with M = 0, t' = 0

    Index labels: one per position, integral, in 0 .. C-1. Other targets: the scores' shape, finite, 0 or more.
    The second top has the probabilities.

    Unlike Caffe's SoftmaxWithLoss, the loss is not floored (there log p stops at log FLT_MIN, a loss of 87.34), a label
    that is not integral or out of range is an error, and NaN is not hidden.

    Source: Caffe src/caffe/layers/softmax_loss_layer.cpp; the multi-label form: Mahajan et al., Exploring the Limits of
    Weakly Supervised Pretraining, section 2.
    """

    parameters = positionwise.PARAMETERS

    @classmethod
    def evaluate(cls, params, layout, scores, labels, weights, gradient, probabilities):
        return positionwise.evaluate(
            params, layout, scores, labels, weights, gradient, probabilities, index_block, dense_block
        )

    def onnx(self, op, scores, labels, weights=None):
        return onnx_softmax_loss(op, self, scores, positionwise.OnnxTarget(op, self.params, scores, labels, weights))
