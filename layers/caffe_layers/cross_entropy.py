"""Cross-entropy of given probabilities (categorical, multinomial logistic): no activation of its own."""

from __future__ import annotations

import numpy as np

from caffe_layers import engine
from caffe_layers.expression import product
from caffe_layers.loss import LossLayer
from caffe_layers.positionwise import expression as positionwise_onnx
from caffe_layers.positionwise import losses as positionwise
from caffe_layers.softmax import sum_over_channels

FLOOR = 1e-20


def index_block(p, label, coefficient, gradient, place, probabilities, workspace):
    """l = -log max(p_t, floor), dl/dp_t = -1 / max(p_t, floor); see positionwise/losses.py."""
    p_t = np.maximum(np.take_along_axis(p, label[:, None], axis=1)[:, 0].astype(np.float64), FLOOR)
    gradient[...] = 0
    flat, places = place()
    flat[places] = -coefficient / p_t
    return -np.log(p_t)


def dense_block(p, target, coefficient, gradient, probabilities, workspace):
    """l = -sum_c t_c log max(p_c, floor), dl/dp_c = -t_c / max(p_c, floor); see positionwise/losses.py."""
    floored = np.maximum(p, p.dtype.type(FLOOR), out=workspace.array("floored", p.shape, p.dtype))
    losses = -sum_over_channels(np.log(floored, out=gradient), target.values)
    coefficient = np.broadcast_to(coefficient, losses.shape)
    np.multiply(target.values, -coefficient[:, None].astype(p.dtype), out=gradient)
    gradient /= floored
    return losses


class CrossEntropyLossLayer(LossLayer):
    """Cross-entropy of probabilities p, which a softmax before it has made (categorical, multinomial logistic).

    With t the target of a position (a label is a one-hot t), t′ the smoothed one as SoftmaxLossLayer has it, and w its
    weight::

        loss = 1/divisor · Σ w Σ_c class_weight_c t′_c (−log max(p_c, 1e-20))
        dp_c = 1/divisor · −w class_weight_c t′_c / max(p_c, 1e-20)

    There is no second top. It is not checked that p sums to 1.

    Beside Caffe's MultinomialLogisticLoss: the same floor, and the same gradient below it (that at the floor, so that
    learning is not stuck there). Caffe divides by the number of samples and takes one label for each; this one takes
    one per position, and every normalization.

    Source: Caffe src/caffe/layers/multinomial_logistic_loss_layer.cpp.

    Examples:
        >>> from caffe_layers.functional import cross_entropy_loss
        >>> loss, gradient = cross_entropy_loss([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [0, 2])
        >>> round(loss, 4)
        0.4581
        >>> gradient.round(3)
        array([[-1.   ,  0.   ,  0.   ],
               [ 0.   ,  0.   , -0.625]])
    """

    parameters = positionwise.PARAMETERS
    tops = ("loss",)
    family = "probabilities"
    scores_are_probabilities = True

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        compiled = engine.compiled("caffe_layers.compiled.cross_entropy", arrays.scores.dtype)
        return positionwise.evaluate(params, arrays, workspace, index_block, dense_block, compiled=compiled)

    def onnx(self, op, scores, labels, weights=None):
        target = positionwise_onnx.PositionwiseTarget(op, self.params, scores, labels, weights)
        axis = target.axis
        if target.channel is not None:
            p_t = op.Max(op.GatherElements(scores, target.channel, axis=axis), FLOOR)
            losses = op.Neg(op.Log(p_t))
        else:
            floored = op.Max(scores, FLOOR)
            losses = op.Neg(op.ReduceSum(op.Mul(target.values, op.Log(floored)), [axis], keepdims=1))
        loss = positionwise_onnx.onnx_loss(op, target, losses)

        def gradient(loss_diff):
            if loss_diff is None:
                return [None]
            scale = op.Neg(product(op, loss_diff, target.factor, target.coefficient))
            if target.channel is None:
                return [op.Div(op.Mul(target.values, scale), floored)]
            return [op.ScatterElements(op.zeros(scores), target.channel, op.Div(scale, p_t), axis=axis)]

        op.define_gradient([loss], [scores], gradient)
        return loss
