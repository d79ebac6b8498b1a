"""Softmax focal loss: a softmax loss in which well-classified positions count less."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np

from caffe_layers import engine, softmax_loss
from caffe_layers import normalization as normalizing
from caffe_layers.expression import product
from caffe_layers.loss import AXIS, CLASS_WEIGHT, LossLayer
from caffe_layers.loss import ignore_label as ignore_label_parameter
from caffe_layers.params import FRACTION_OR_WEIGHTS, INTEGER_FROM_0, NOT_NEGATIVE, Parameter, or_null
from caffe_layers.positionwise import expression as positionwise_onnx
from caffe_layers.positionwise import losses as positionwise
from caffe_layers.power import onnx_power, power

TINY = float(np.finfo(np.float64).tiny)
FLOAT_TINY = float(np.finfo(np.float32).tiny)


def _modulate(q, ratio, nll, gamma):
    """With q = 1 - p_t and nll = -log p_t: q^gamma nll, and its derivative by nll, q^gamma (1 + gamma p_t / q nll).

    ``ratio`` is q / p_t. nll / ratio goes to 1 with q to 0, so there is no negative power of q for any gamma.
    """
    modulation = power(q, gamma)
    slope = nll + TINY
    slope /= ratio + TINY
    slope *= gamma
    slope += 1
    slope *= modulation
    modulation *= nll
    return modulation, slope


def _onnx_modulate(op, q, nll, gamma):
    if gamma == 0:
        return nll, None
    if gamma >= 1:
        # One q is left out of the modulation, and nothing has to be divided by it.
        modulation = onnx_power(op, q, gamma - 1) if gamma > 1 else None
        slope = op.Add(q, op.Mul(op.Mul(op.Sub(1, q), nll), gamma))
        return product(op, op.Mul(q, nll), modulation), product(op, slope, modulation)
    modulation = onnx_power(op, q, gamma)
    ratio = op.Div(op.Add(nll, FLOAT_TINY), op.Add(q, FLOAT_TINY))
    return op.Mul(modulation, nll), op.Mul(modulation, op.Add(op.Mul(op.Mul(op.Sub(1, q), ratio), gamma), 1))


class SoftmaxFocalLossLayer(LossLayer):
    """The focal loss on a softmax: a softmax loss in which well-classified positions count less.

    With x the scores of a position, t its label and w its weight::

        p    = softmax(x)
        loss = 1/divisor · Σ w class_weight_t α_t (1 − p_t)^γ (−log p_t)
        dx_c = 1/divisor · w class_weight_t α_t (1 − p_t)^γ (1 − γ p_t log p_t / (1 − p_t)) (p_c − [c = t])

    α_t is α for foreground labels and 1 − α for ``background_label`` (null: α for all) for a number α, the label's
    entry for a list, 1 for null. γ = 0 with α null is SoftmaxLossLayer to the last bit. Targets are labels; there is no
    smoothing. The second top has the probabilities.

    Detectron divides by the number of foreground labels and ignores those below 0: ``normalization: POSITIVES,
    ignore_label: -1``.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, equation 5; the softmax form: Detectron,
    modules/detectron/softmax_focal_loss_op.

    Examples:
        >>> from caffe_layers.functional import softmax_focal_loss
        >>> loss, gradient = softmax_focal_loss([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]], [0, 2])
        >>> round(loss, 4)
        0.0046
        >>> gradient.round(4)
        array([[-0.01  ,  0.005 ,  0.005 ],
               [ 0.0004,  0.001 , -0.0014]])
    """

    parameters = (
        AXIS,
        ignore_label_parameter("positions"),
        *normalizing.parameters("VALID"),
        CLASS_WEIGHT,
        Parameter(
            "alpha", or_null(FRACTION_OR_WEIGHTS), 0.25, "foreground's weight (background: 1 - alpha), or a list"
        ),
        Parameter("gamma", NOT_NEGATIVE, 2.0, "the larger, the less a well-classified position counts"),
        Parameter("background_label", or_null(INTEGER_FROM_0), 0, "the class of the background; null: none"),
    )
    family = "softmax"

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        focal = softmax_loss.index_block
        if params["gamma"]:
            focal = partial(focal, modulate=partial(_modulate, gamma=params["gamma"]))
        fast = engine.compiled("caffe_layers.compiled.softmax", arrays.scores.dtype)
        compiled = None
        if fast is not None:
            compiled = SimpleNamespace(index_block=partial(fast.index_block, gamma=params["gamma"]))
        alpha = _alpha(params, arrays.layout.channels)
        return positionwise.evaluate(params, arrays, workspace, focal, None, alpha, compiled)

    def onnx(self, op, scores, labels, weights=None):
        def scale(target):
            alpha = _alpha(self.params, target.channels)
            return None if alpha is None else target.of_class(alpha)

        target = positionwise_onnx.PositionwiseTarget(op, self.params, scores, labels, weights, scale)
        modulate = partial(_onnx_modulate, gamma=self.params["gamma"])
        return softmax_loss.onnx_softmax_loss(op, self, scores, target, modulate)


def _alpha(params, channels):
    """alpha_t for each label, or None."""
    alpha, background = params["alpha"], params["background_label"]
    if alpha is None or isinstance(alpha, list):
        return None if alpha is None else np.array(alpha)
    of_label = np.full(channels, alpha)
    if background is not None:
        of_label[background] = 1 - alpha
    return of_label
