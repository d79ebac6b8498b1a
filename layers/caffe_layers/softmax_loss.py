"""Softmax loss: the cross-entropy of the softmax of the scores with a label, a distribution or many labels."""

from __future__ import annotations

import numpy as np

from caffe_layers import engine
from caffe_layers.expression import HIGHEST, onnx_log1p, product
from caffe_layers.loss import LossLayer
from caffe_layers.positionwise import expression as positionwise_onnx
from caffe_layers.positionwise import losses as positionwise
from caffe_layers.softmax import SAFE, are_few_moderate, are_safe, shifted, sum_over_channels
from caffe_layers.targets import places_of


def index_block(x, label, coefficient, gradient, place, probabilities, workspace, modulate=None):
    """l = -log p_t, dl/dx_c = p_c - [c = t]; see positionwise/losses.py.

    The sum over the others is taken without the label's own e_t, so that neither l = log1p(others / e_t) nor
    1 - p_t = others / total cancels. ``modulate(1 - p_t, others / e_t, -log p_t)`` gives another function of them and
    its derivative by -log p_t.
    """
    small = are_few_moderate(x)
    if small:  # float64 lacks neither digits nor range.
        e = np.exp(x, dtype=np.float64)
        flat, places = e.reshape(-1), places_of(label, x.shape[1])
    else:
        e = np.exp(x, out=gradient)
        flat, places = place()
    e_t = flat[places].astype(np.float64, copy=False)
    flat[places] = 0
    others = sum_over_channels(e)
    if modulate is not None and not small and np.logical_or.reduce(others < e_t, axis=None):
        # Where the label is likely, a power multiplies the relative error of 1 - p_t: then the block is float64.
        e = np.exp(x, out=workspace.array("e", x.shape, np.dtype(np.float64)), dtype=np.float64)
        flat, places = e.reshape(-1), places_of(label, x.shape[1])
        e_t = flat[places]
        flat[places] = 0
        others = sum_over_channels(e)
    total = others + e_t
    ratio = others / e_t
    losses = np.log1p(ratio)
    if not small and not are_safe(others, total + ratio):
        far = ~((others > 1 / SAFE) & (total + ratio < SAFE))
        others[far], total[far], ratio[far], losses[far] = _index_rows(x, label, e, e_t, far)
    if probabilities is not None:
        np.multiply(e, (1 / total)[:, None].astype(x.dtype), out=probabilities, casting="same_kind")
        np.put_along_axis(probabilities, label[:, None], (e_t / total)[:, None].astype(x.dtype), axis=1)
    scale = coefficient / total
    if modulate is not None:
        losses, slope = modulate(others / total, ratio, losses)
        scale *= slope
    flat[places] = np.negative(others, out=others).astype(flat.dtype, copy=False)
    np.multiply(e, scale[:, None].astype(e.dtype, copy=False), out=gradient, casting="same_kind")
    return losses


def _index_rows(x, label, e, e_t, positions):
    """(others, total, ratio, losses) of the positions in the mask, in float64, their e and e_t put in place."""
    rows, label = shifted(x, positions), label[positions]
    labelled = np.arange(len(rows)), label
    below = rows[labelled]
    np.exp(rows, out=rows)
    e_t[positions] = rows[labelled]
    rows[labelled] = 0
    e.transpose(0, 2, 1)[positions] = rows
    others = rows.sum(axis=1)
    total, ratio = others + e_t[positions], others / e_t[positions]
    return others, total, ratio, np.where(others < 1, np.log1p(ratio), np.log(total) - below)


def dense_block(x, target, coefficient, gradient, probabilities, workspace):
    """l = -sum_c t_c log p_c, dl/dx_c = p_c sum_k t_k - t_c; see positionwise/losses.py."""
    e = np.exp(x, out=gradient)
    total = sum_over_channels(e)
    inverse = 1 / total
    mass, weighted = target.mass(), target.times(x)
    losses = mass * np.log(total) - weighted
    # Not where the difference is small beside its terms, or its terms beside the ends of float32.
    exact = ~(((losses >= mass + 0.5 * np.abs(weighted)) | (mass == 0)) & (np.maximum(total, inverse) < SAFE))
    any_exact = exact.any()
    if any_exact:
        rows, t = shifted(x, exact), target.values.transpose(0, 2, 1)[exact].astype(np.float64)
        e_rows = np.exp(rows)
        tail = np.where(rows == 0, 0, e_rows).sum(axis=1) + (np.count_nonzero(rows == 0, axis=1) - 1)
        mass_of_rows = t.sum(axis=1)
        losses[exact] = mass_of_rows * np.log1p(tail) - np.einsum("nc,nc->n", t, rows)
        e.transpose(0, 2, 1)[exact] = e_rows
        inverse[exact] = 1 / (1 + tail)
        # The sum is 1 + tail: with the two apart, p_t - t cancels only where both are meant.
        slopes = (e_rows * mass_of_rows[:, None] - t) - t * tail[:, None]
        slopes *= inverse[exact][:, None]
    if probabilities is not None:
        np.multiply(e, inverse[:, None].astype(x.dtype), out=probabilities)
    coefficient = np.broadcast_to(coefficient, mass.shape)
    target.write_gradient(gradient, mass * inverse, coefficient)
    if any_exact:
        gradient.transpose(0, 2, 1)[exact] = slopes * coefficient[exact][:, None]
    return losses


def onnx_softmax_loss(op, layer, scores, target, modulate=None):
    """The layer's top or tops; ``modulate(op, 1 - p_t, -log p_t)`` is as in :func:`index_block`, its slope None for 1.

    Written out rather than with LogSoftmax, which onnx defines as the Log of a Softmax that can be 0.
    """
    axis = target.axis
    above = op.Sub(scores, op.ReduceMax(scores, [axis], keepdims=1))
    e = op.Exp(above)
    slope = None
    if target.channel is not None:
        above_t = op.GatherElements(above, target.channel, axis=axis)
        e_t = op.Exp(above_t)
        others, gradient_of = _onnx_others(op, target, e, e_t)
        total = op.Add(others, e_t)
        # Where the label has the largest score, e_t is 1, so that total - 1 has the digits of others.
        excess = op.Add(others, op.Sub(e_t, 1))
        losses = op.Min(op.Sub(onnx_log1p(op, excess), above_t), HIGHEST)
        if modulate is not None:
            losses, slope = modulate(op, op.Div(others, total), losses)
    else:
        # The largest score has e = 1, and no other: the sum of the others keeps its digits if it is taken by itself.
        largest = op.Floor(e)
        others = op.ReduceSum(op.Sub(e, largest), [axis], keepdims=1)
        excess = op.Add(others, op.Sub(op.ReduceSum(largest, [axis], keepdims=1), 1))
        total = op.Add(excess, 1)
        mass = op.ReduceSum(target.values, [axis], keepdims=1)
        weighted = op.ReduceSum(op.Mul(target.values, op.Max(above, -HIGHEST)), [axis], keepdims=1)
        losses = op.Sub(op.Mul(mass, onnx_log1p(op, excess)), weighted)
    tops = [positionwise_onnx.onnx_loss(op, target, losses)]
    if layer.top_count > 1:
        tops.append(op.Div(e, total))

    def gradient(loss_diff, probabilities_diff=None):
        if loss_diff is None:
            return [None]
        scale = product(op, loss_diff, target.factor, target.coefficient, slope)
        if target.channel is None:
            # (e sum_k t_k) / total - t_c, in an order in which a probability of almost 1 keeps its distance from 1.
            slopes = op.Sub(op.Sub(op.Mul(e, mass), target.values), op.Mul(target.values, excess))
            return [op.Mul(slopes, op.Div(scale, total))]
        return [gradient_of(op.Div(scale, total))]

    op.define_gradient(tops, [scores], gradient)
    return tuple(tops)


def _onnx_others(op, target, e, e_t):
    """(the sum of e over all channels but the label's, and a function)

    The function gives, times a scale, e with minus that sum in the label's channel. Nothing cancels in any of them.
    """
    axis, channel = target.axis, target.channel
    if axis == len(op.shape(e)) - 1:
        rest = op.ScatterElements(e, channel, op.zeros(e_t), axis=axis)
        others = op.ReduceSum(rest, [axis], keepdims=1)

        def gradient(scale):
            return op.ScatterElements(op.Mul(rest, scale), channel, op.Neg(op.Mul(others, scale)), axis=axis)

        return others, gradient
    # Over an inner axis ONNX Runtime multiplies with a mask faster than it selects or scatters.
    is_label = op.Equal(channel, op.constant(target.per_class(np.arange(target.channels)), np.int64))
    is_label = op.cast(is_label, e)
    rest = op.Mul(e, op.Sub(1, is_label))
    others = op.ReduceSum(rest, [axis], keepdims=1)
    return others, lambda scale: op.Mul(op.Sub(rest, op.Mul(is_label, others)), scale)


class SoftmaxLossLayer(LossLayer):
    """Softmax and cross-entropy in one (categorical cross-entropy, softmax loss).

    With x the scores of a position, t its target (a label is a one-hot t) and w its weight::

        p    = softmax(x)
        loss = 1/divisor · Σ w Σ_c class_weight_c t′_c (−log p_c)
        dx_c = 1/divisor · w (p_c Σ_k class_weight_k t′_k − class_weight_c t′_c)

        t′_c = (1 − ε) t_c + ε / C       index, distribution
        t′_c = (1 − ε) t_c / M + ε / C   multi_label: M is the number of t_c that are not 0; with M = 0, t′ = 0

    ``multi_label`` is Facebook's loss for hashtags. The second top has the probabilities.

    Beside Caffe's SoftmaxWithLoss: Caffe floors p at FLT_MIN, so its loss of a position stops at 87.34, and this one's
    is the exact logarithm; the gradients are the same. Caffe casts labels to int (1.75 is class 1) and reads out of
    bounds for a label ≥ C; here both are errors, and NaN is not hidden. The weight bottom, ``class_weight``,
    ``label_smoothing``, the dense targets, POSITIVES and WEIGHT have no counterpart in Caffe.

    Source: Caffe src/caffe/layers/softmax_loss_layer.cpp; the multi-label form: Mahajan et al. 2018, Exploring the
    Limits of Weakly Supervised Pretraining, section 2.

    Examples:
        >>> from caffe_layers.functional import softmax_loss
        >>> loss, gradient = softmax_loss([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]], [0, 2])
        >>> round(loss, 4)
        0.2047
        >>> gradient.round(3)
        array([[-0.107,  0.053,  0.053],
               [ 0.021,  0.057, -0.078]])
        >>> loss, _ = softmax_loss([[2.0, 0.0, 0.0]], [[1, 1, 0]], target="multi_label")  # half a label each
        >>> round(loss, 4)
        1.2395
    """

    parameters = positionwise.PARAMETERS
    family = "softmax"

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        compiled = engine.compiled("caffe_layers.compiled.softmax", arrays.scores.dtype)
        return positionwise.evaluate(params, arrays, workspace, index_block, dense_block, compiled=compiled)

    def onnx(self, op, scores, labels, weights=None):
        return onnx_softmax_loss(
            op, self, scores, positionwise_onnx.PositionwiseTarget(op, self.params, scores, labels, weights)
        )
