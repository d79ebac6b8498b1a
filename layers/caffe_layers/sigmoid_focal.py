"""Sigmoid focal loss: a sigmoid cross-entropy in which well-classified elements count less."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from caffe_layers import engine, sigmoid_cross_entropy
from caffe_layers.elementwise import expression as elementwise_onnx
from caffe_layers.elementwise import losses as elementwise
from caffe_layers.elementwise.losses import ElementwiseLoss
from caffe_layers.expression import product
from caffe_layers.params import FRACTION_OR_WEIGHTS, NOT_NEGATIVE, Parameter, or_null
from caffe_layers.power import onnx_power, power
from caffe_layers.softmax import sum_over_channels

TINY = float(np.finfo(np.float32).tiny)


def no_terms(x, weight, losses, gradient, workspace, gamma):
    """loss = p^gamma B, dloss/dx = p^gamma (p + gamma (1 - p) B), B = log(1 + exp(x)); see elementwise/losses.py.

    The power multiplies the relative error of exp, which is therefore rounded from float64.
    """
    e = np.exp(x, out=workspace.array("e", x.shape, x.dtype), dtype=np.float64, casting="same_kind")
    modulation = _no_factors(e, losses, gradient, workspace, gamma)
    modulation *= weight
    gradient *= modulation
    losses *= modulation
    return losses


def no_sum(x, places, gradient, workspace, gamma):
    """The sum of these losses, with the exp of float32; see elementwise/losses.py."""
    largest = float(np.maximum.reduce(x, axis=None))
    if not abs(largest) < elementwise.LARGE:
        return math.nan
    e = np.exp(x, out=workspace.array("e", x.shape, x.dtype))
    losses = workspace.array("losses", x.shape, x.dtype)
    modulation = _no_factors(e, losses, gradient, workspace, gamma)
    gradient *= modulation
    if places is not None:
        losses.reshape(-1)[places] = 0
    total = float(np.add.reduce(sum_over_channels(losses, modulation), axis=None))
    largest_loss = math.log1p(math.exp(largest)) / (1 + math.exp(-largest)) ** gamma
    return total if largest_loss <= total / elementwise.ALIKE else math.nan


def _no_factors(e, cross_entropy, gradient, workspace, gamma):
    """Make p of e, write B and p + gamma (1 - p) B, and return p^gamma: the factors of loss and gradient."""
    np.log1p(e, out=cross_entropy)
    whole = np.add(e, 1, out=gradient)
    p = np.divide(e, whole, out=e)
    np.divide(gamma, whole, out=gradient)
    gradient *= cross_entropy
    gradient += p
    return power(p, gamma, out=workspace.array("modulation", p.shape, p.dtype))


def terms(distance, u, sides, weight, gradient, workspace, gamma):
    """loss = q^gamma B and dloss/d|x| = q^gamma (dB/d|x| - gamma (1 - 2 u) p (1 - p) / q B); see elementwise/losses.py.

    B is the cross-entropy of sigmoid_cross_entropy.py, q = 1 - p_t = s + u (l - s) of the larger and the smaller one of
    p and 1 - p. p (1 - p) / q = l s / q is at most 1 and goes to l where q goes to 0, so no gamma needs a negative
    power of q.
    """
    smaller = np.negative(distance, out=workspace.array("smaller", u.shape, u.dtype))
    np.exp(smaller, out=smaller, dtype=np.float64, casting="same_kind")
    larger = np.add(smaller, 1, out=workspace.array("larger", u.shape, u.dtype))
    np.divide(1, larger, out=larger)
    smaller *= larger
    cross_entropy = sigmoid_cross_entropy.terms(distance, u, sides, 1.0, gradient, workspace)
    q = np.subtract(larger, smaller, out=workspace.array("e", u.shape, u.dtype))
    q *= u
    q += smaller
    modulation = power(q, gamma, out=distance)
    modulation *= weight
    # Where q is 0 then so is s, and s / q is to be 1.
    tiny = np.finfo(u.dtype).tiny
    smaller += tiny
    q += tiny
    slope = np.divide(smaller, q, out=smaller)
    slope *= larger
    slope *= cross_entropy
    u *= -2
    u += 1
    u *= gamma
    slope *= u
    gradient -= slope
    gradient *= modulation
    cross_entropy *= modulation
    return cross_entropy


def formulas(gamma, dtype):
    if gamma == 0:
        return sigmoid_cross_entropy.formulas(dtype)
    # The power multiplies the relative error of its base, and that of gamma with the base's logarithm.
    if gamma > 2 or float(np.float32(gamma)) != gamma:
        dtype = np.float64
    functions = [partial(function, gamma=gamma) for function in (no_terms, terms, no_sum)]
    return elementwise.Formulas._make([*functions, False, dtype])


def onnx_terms(op, x, t, pos_weight, alpha, gamma):
    """(parts, derivative) of :func:`terms`; see elementwise/expression.py."""
    parts, cross_entropy_derivative = sigmoid_cross_entropy.onnx_terms(op, x, t, pos_weight)
    cross_entropy_losses = elementwise_onnx.add(op, parts)
    alpha_t = None if alpha is None else _onnx_alpha(op, t, alpha)
    if gamma == 0:
        return [product(op, cross_entropy_losses, alpha_t)], lambda: product(op, cross_entropy_derivative(), alpha_t)
    p, rest = op.Sigmoid(x), op.Sigmoid(op.Neg(x))
    q = _onnx_q(op, p, rest, t)
    sign = gamma * (1 - 2 * t) if isinstance(t, float) else op.Sub(gamma, op.Mul(t, 2 * gamma))
    if gamma < 1:
        modulation = product(op, onnx_power(op, q, gamma), alpha_t)

        def derivative_below_1():
            # p (1 - p) / q is to be 1 - p where p and q are 0, and p where 1 - p and q are.
            slope = op.Div(op.Add(op.Mul(p, rest), TINY), op.Add(q, TINY))
            slope = op.Mul(op.Mul(slope, sign), cross_entropy_losses)
            return op.Mul(op.Add(cross_entropy_derivative(), slope), modulation)

        return [op.Mul(cross_entropy_losses, modulation)], derivative_below_1
    # One q is left out of the modulation, and nothing has to be divided by it.
    modulation = product(op, onnx_power(op, q, gamma - 1) if gamma > 1 else None, alpha_t)

    def derivative():
        slope = op.Mul(op.Mul(op.Mul(p, rest), sign), cross_entropy_losses)
        return product(op, op.Add(op.Mul(cross_entropy_derivative(), q), slope), modulation)

    return [product(op, op.Mul(cross_entropy_losses, q), modulation)], derivative


def _onnx_q(op, p, rest, t):
    if isinstance(t, float):
        return p if t == 0 else rest if t == 1 else op.Add(op.Mul(p, 1 - t), op.Mul(rest, t))
    return op.Add(op.Mul(p, op.Sub(1, t)), op.Mul(rest, t))


def _onnx_alpha(op, t, alpha):
    if isinstance(t, float):
        return alpha * t + (1 - alpha) * (1 - t)
    return op.Add(op.Mul(t, 2 * alpha - 1), 1 - alpha)


class SigmoidFocalLossLayer(ElementwiseLoss):
    """The focal loss of RetinaNet: a sigmoid cross-entropy in which well-classified elements count less.

    With x a score, t its target in [0, 1], t′ the smoothed one and w its weight::

        p       = 1 / (1 + exp(−x))
        B       = −(pos_weight_c t′ log p + (1 − t′) log(1 − p))
        1 − p_t = p (1 − t′) + (1 − p) t′
        loss    = 1/divisor · Σ w class_weight_c α_t (1 − p_t)^γ B
        t′      = (1 − ε) t + ε / 2

    α_t is α t′ + (1 − α)(1 − t′) for a number α, the channel's entry (for both signs) for a list, 1 for null. γ = 0
    with α null is SigmoidCrossEntropyLossLayer to the last bit; targets, labels, weights and tops are those of that
    layer. Soft targets are as in torchvision and optax.

    The paper divides by the number of foreground anchors: ``normalization: POSITIVES``. Detectron's labels are
    ``target: index, ignore_label: -1``, mmdet 2's ``target: index, background_label: <number of classes>``.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, equation 5; torchvision.ops.sigmoid_focal_loss.

    Examples:
        >>> from caffe_layers.functional import sigmoid_focal_loss
        >>> loss, gradient = sigmoid_focal_loss([[2.0, -1.0], [0.0, 3.0]], [[1, 0], [1, 0]], normalization="POSITIVES")
        >>> round(loss, 4)
        1.0677
        >>> gradient.round(3)
        array([[-0.001,  0.02 ],
               [-0.037,  0.423]])
    """

    parameters = (
        *elementwise.PARAMETERS,
        Parameter(
            "alpha", or_null(FRACTION_OR_WEIGHTS), 0.25, "weight of the positives (negatives: 1 - alpha), or a list"
        ),
        Parameter("gamma", NOT_NEGATIVE, 2.0, "the larger, the less a well-classified element counts"),
    )
    family = "sigmoid"

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        alpha, class_factor = _split(params["alpha"])
        gamma, dtype = params["gamma"], arrays.scores.dtype
        fast = engine.compiled("caffe_layers.compiled.sigmoid", dtype)
        compiled = None if fast is None else partial(fast.block, gamma=gamma)
        return elementwise.evaluate(params, arrays, workspace, formulas(gamma, dtype), alpha, class_factor, compiled)

    def onnx(self, op, scores, labels, weights=None):
        number, factors = _split(self.params["alpha"])
        focal = partial(onnx_terms, alpha=number, gamma=self.params["gamma"])
        return elementwise_onnx.onnx_loss(op, self, scores, labels, weights, focal, class_factor=factors)


def _split(alpha):
    """alpha as (number or None, list or None)."""
    return (None, alpha) if isinstance(alpha, list) else (alpha, None)
