"""Sigmoid: p = 1 / (1 + exp(-x)), element by element."""

from __future__ import annotations

import numpy as np

from caffe_layers.layer import PluginLayer, naming
from caffe_layers.loss import as_scores

_BLOCK = 1 << 15


def sigmoid(scores):
    """The sigmoid of a float32 or float64 array, as an array of the same shape and dtype. Raises LayerError (dtype)."""
    with naming("sigmoid"):
        scores = as_scores(scores)
    result = np.empty(scores.shape, scores.dtype)
    _forward(scores, result)
    return result


def halves(scores):
    """exp(-|x|), and the larger and the smaller one of p and 1 - p; none of them overflows or cancels."""
    e = np.abs(scores)
    np.negative(e, out=e)
    np.exp(e, out=e)
    larger = 1 / (1 + e)
    return e, larger, e * larger


def _forward(scores, result):
    x, p = scores.reshape(-1), result.reshape(-1)
    with np.errstate(under="ignore"):
        for start in range(0, x.size, _BLOCK):
            part = x[start : start + _BLOCK]
            _, larger, smaller = halves(part)
            p[start : start + _BLOCK] = np.where(part < 0, smaller, larger)


class SigmoidLayer(PluginLayer):
    """p = 1 / (1 + exp(-x)); bottom and top may be one blob.

    backward, from the top's data y: dx = dy y (1 - y).

    Source: Caffe src/caffe/layers/sigmoid_layer.cpp.
    """

    bottoms = ("scores",)
    tops = ("probabilities",)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        _forward(bottom[0].data, top[0].data)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            p, dp, dx = (array.reshape(-1) for array in (top[0].data, top[0].diff, bottom[0].diff))
            for start in range(0, p.size, _BLOCK):
                part = slice(start, start + _BLOCK)
                np.multiply(dp[part], p[part] * (1 - p[part]), out=dx[part])

    def onnx(self, op, scores):
        top = op.Sigmoid(scores)

        def gradient(top_diff):
            return [None if top_diff is None else op.Mul(top_diff, op.Mul(top, op.Sub(1, top)))]

        op.define_gradient([top], [scores], gradient)
        return top
