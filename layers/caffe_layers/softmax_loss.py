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
    """The layer's top or tops; ``modulate(op, -log p_t)`` is as in :func:`index_block`, its slope None for 1."""
    axis, coefficient, factor = target.axis, target.coefficient, target.factor
    log_p = op.LogSoftmax(scores, axis=axis)
    p = op.Exp(log_p)
    if target.channel is not None:
        nll = op.Neg(op.Max(op.GatherElements(log_p, target.channel, axis=axis), -HIGHEST))
        losses, slope = (nll, None) if modulate is None else modulate(op, nll)
    else:
        nll = op.Neg(op.ReduceSum(op.Mul(target.values, op.Max(log_p, -HIGHEST)), [axis], keepdims=1))
        losses, slope = nll, None
    loss = positionwise.onnx_loss(op, target, losses)

    def gradient(loss_diff, probabilities_diff=None):
        if loss_diff is None:
            return [None]
        scale = product(op, loss_diff, factor, coefficient, slope)
        if target.channel is None:
            mass = op.ReduceSum(target.values, [axis], keepdims=1)
            return [op.Mul(op.Sub(op.Mul(p, mass), target.values), scale)]
        p_t = op.GatherElements(p, target.channel, axis=axis)
        labelled = op.Mul(op.Sub(p_t, 1), scale)
        return [op.ScatterElements(op.Mul(p, scale), target.channel, labelled, axis=axis)]

    tops = [loss, p][: layer.top_count]
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
