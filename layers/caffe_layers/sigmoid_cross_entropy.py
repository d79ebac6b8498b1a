"""Sigmoid cross-entropy: binary cross-entropy of the sigmoid of each score (logistic, multi-label)."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from caffe_layers import engine
from caffe_layers.elementwise import expression as elementwise_onnx
from caffe_layers.elementwise import losses as elementwise
from caffe_layers.elementwise.losses import ElementwiseLoss
from caffe_layers.expression import onnx_log1p_of_exp_of_minus


def no_terms(x, weight, losses, gradient, workspace):
    """loss = log(1 + exp(x)), dloss/dx = p; see elementwise/losses.py."""
    e = np.exp(x, out=workspace.array("e", x.shape, x.dtype))
    np.log1p(e, out=losses)
    np.add(e, 1, out=gradient)
    np.divide(e, gradient, out=gradient)
    return _weighed(losses, weight, gradient)


def terms(distance, u, sides, weight, gradient, workspace):
    """loss = log(1 + exp(-|x|)) + |x| u, dloss/d|x| = u - exp(-|x|) / (1 + exp(-|x|)); see elementwise/losses.py.

    With pos_weight, a and b being the sides: (a + b) log(1 + exp(-|x|)) + |x| a.
    """
    e = np.negative(distance, out=workspace.array("e", u.shape, u.dtype))
    np.exp(e, out=e)
    losses = np.log1p(e, out=workspace.array("losses", u.shape, u.dtype))
    np.add(e, 1, out=gradient)
    if sides is None:
        distance *= u
        np.divide(e, gradient, out=gradient)
        np.subtract(u, gradient, out=gradient)
    else:
        a, b = sides
        losses *= a + b
        distance *= a
        np.divide(a - b * e, gradient, out=gradient)
    losses += distance
    return _weighed(losses, weight, gradient)


def formulas(dtype):
    return elementwise.Formulas(no_terms, terms, no_sum, is_linear=True, dtype=dtype)


_FACTORS = 8
"""So many sums 1 + exp(x) are multiplied before the logarithm is taken; of scores up to 10, that is below 1e35."""


def no_sum(x, places, gradient, workspace):
    """sum log(1 + exp(x)), dloss/dx = p; see elementwise/losses.py."""
    e = np.exp(x, out=workspace.array("e", x.shape, x.dtype))
    whole = np.add(e, 1, out=workspace.array("whole", x.shape, x.dtype)).reshape(-1)
    np.divide(e, whole.reshape(x.shape), out=gradient)
    if places is not None:
        whole[places] = 1
    end = whole.size - whole.size % _FACTORS
    total, number = float(np.log(whole[end:], dtype=np.float64).sum()), end
    for _ in range(_FACTORS.bit_length() - 1):
        number //= 2
        np.multiply(whole[:number], whole[number : 2 * number], out=whole[:number])
    total += float(np.add.reduce(np.log(whole[:number], out=whole[:number])))
    # 1 + exp(x) has lost digits of exp(x), which count for little where the logarithms are not small.
    return total if total > x.size / 64 else math.nan


def _weighed(losses, weight, gradient):
    if not isinstance(weight, float) or weight != 1:
        losses *= weight
        gradient *= weight
    return losses


def onnx_terms(op, x, t, pos_weight):
    """(parts, derivative) of :func:`terms`; see elementwise/expression.py."""
    shared = onnx_log1p_of_exp_of_minus(op, op.Abs(x))
    if pos_weight is None:
        return [*shared, _onnx_far_side(op, x, t)], lambda: op.Sub(op.Sigmoid(x), t)
    positive, negative = _times(op, t, pos_weight), _complement(op, t)
    shared = op.Mul(elementwise_onnx.add(op, shared), op.Add(positive, negative))
    sides = op.Add(op.Mul(op.Relu(x), negative), op.Mul(op.Relu(op.Neg(x)), positive))

    def derivative():
        p = op.Sigmoid(x)
        return op.Sub(op.Mul(p, negative), op.Mul(op.Sub(1, p), positive))

    return [shared, sides], derivative


def _onnx_far_side(op, x, t):
    """|x| u: x (1 - t) above 0, -x t below."""
    if isinstance(t, float) and t in (0, 1):
        return op.Relu(x if t == 0 else op.Neg(x))
    # 1 above 0 and 0 below: the probability, rounded. The gradient needs it anyway, and it takes one pass less.
    return op.Mul(op.Sub(op.Round(op.Sigmoid(x)), t), x)


def _complement(op, t):
    return 1 - t if isinstance(t, float) else op.Sub(1, t)


def _times(op, t, pos_weight):
    if pos_weight is None:
        return t
    computed = not isinstance(t, float) or not isinstance(pos_weight, (float, np.ndarray))
    return op.Mul(t, pos_weight) if computed else t * pos_weight


class SigmoidCrossEntropyLossLayer(ElementwiseLoss):
    """Sigmoid and binary cross-entropy in one (logistic loss); every channel is a yes-no question of its own.

    With x a score, t its target in [0, 1], t′ the smoothed one and w its weight::

        p    = 1 / (1 + exp(−x))
        loss = 1/divisor · Σ −w class_weight_c (pos_weight_c t′ log p + (1 − t′) log(1 − p))
        dx   = 1/divisor · w class_weight_c ((1 − t′) p − pos_weight_c t′ (1 − p))
        t′   = (1 − ε) t + ε / 2

    With index labels ``background_label`` has no channel, and the channels are the other labels in order. The weights
    are one per position, or with multi_label one per element. The second top has the probabilities.

    Beside Caffe's SigmoidCrossEntropyLoss: Caffe casts a target to int before it compares it with ``ignore_label``, so
    that with ``ignore_label: 0`` every soft target below 1 is ignored; here only targets equal to it are. A target
    outside [0, 1] is an error. Caffe's divisors count elements too.

    Source: Caffe src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp; pos_weight: torch.nn.BCEWithLogitsLoss.

    Examples:
        >>> from caffe_layers.functional import sigmoid_cross_entropy_loss
        >>> loss, gradient = sigmoid_cross_entropy_loss([[2.0, -1.0], [0.0, 3.0]], [[1, 0], [1, 0]])
        >>> round(loss, 4)
        2.091
        >>> gradient.round(3)
        array([[-0.06 ,  0.134],
               [-0.25 ,  0.476]])
    """

    family = "sigmoid"

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        dtype = arrays.scores.dtype
        fast = engine.compiled("caffe_layers.compiled.sigmoid", dtype)
        compiled = None if fast is None else partial(fast.block, gamma=0.0)
        return elementwise.evaluate(params, arrays, workspace, formulas(dtype), compiled=compiled)

    def onnx(self, op, scores, labels, weights=None):
        return elementwise_onnx.onnx_loss(op, self, scores, labels, weights, onnx_terms)
