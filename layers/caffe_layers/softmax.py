"""Softmax: p_c = exp(x_c) / sum_k exp(x_k) over the channels of each position."""

from __future__ import annotations

import numpy as np

from caffe_layers.layer import PluginLayer, naming
from caffe_layers.loss import AXIS, as_scores
from caffe_layers.targets import Layout


def exponentials(scores, out):
    """Write e_c = exp(x_c - m), m the largest score of the position, to ``out`` and return m and the tail.

    ``scores`` and ``out`` are outer x C x inner, of one dtype; m and the tail outer x inner, float64. The tail is the
    sum of all e_c but that of the largest score (which is 1), so that p_c = e_c / (1 + tail), and -log p_c =
    log1p(tail) + (m - x_c) has no cancellation.
    """
    largest = scores.max(axis=1, keepdims=True)
    np.subtract(scores, largest, out=out)
    np.exp(out, out=out)
    tail = np.add.reduce(out, axis=1, dtype=np.float64) - 1
    # Where one score has more than half of the probability, loss and gradient are nearly proportional to the tail, and
    # an exponent far below 0 that has been rounded to float32 would show in them.
    decided = tail < 1
    if decided.any():
        out.transpose(0, 2, 1)[decided], tail[decided] = _exact(scores.transpose(0, 2, 1)[decided])
    return largest[:, 0].astype(np.float64), tail


def _exact(rows):
    """The exponentials and the tail of rows of scores, by way of float64."""
    rows = rows.astype(np.float64)
    which = np.arange(len(rows)), rows.argmax(axis=1)
    rows -= rows[which][:, None]
    np.exp(rows, out=rows)
    rows[which] = 0
    tail = rows.sum(axis=1)
    rows[which] = 1
    return rows, tail


def softmax(scores, axis=1):
    """The softmax of a float32 or float64 array over ``axis``, as an array of the same shape and dtype.

    Raises LayerError (dtype), ParameterError (axis).
    """
    with naming("softmax"):
        scores = as_scores(scores)
        layout = Layout.of(scores.shape, axis)
    probabilities = np.empty(scores.shape, scores.dtype)
    _forward(layout, scores, probabilities)
    return probabilities


def _forward(layout, scores, probabilities):
    scores, probabilities = layout.channelwise(scores), layout.channelwise(probabilities)
    with np.errstate(all="ignore"):
        for rows, columns in layout.blocks():
            p = probabilities[rows, :, columns]
            x = scores[rows, :, columns]
            if np.may_share_memory(x, p):
                x = x.copy()
            _, tail = exponentials(x, out=p)
            p *= (1 / (1 + tail))[:, None].astype(p.dtype)


def _backward(layout, probabilities, probability_diff, score_diff):
    """dL/dx_c = p_c (dL/dp_c - sum_k p_k dL/dp_k); the two diffs may be one array."""
    arrays = [layout.channelwise(array) for array in (probabilities, probability_diff, score_diff)]
    for rows, columns in layout.blocks():
        p, dp, dx = (array[rows, :, columns] for array in arrays)
        mean = np.einsum("ncs,ncs->ns", p, dp, dtype=np.float64)
        np.subtract(dp, mean[:, None].astype(dp.dtype), out=dx)
        np.multiply(dx, p, out=dx)


class SoftmaxLayer(PluginLayer):
    """p_c = exp(x_c) / sum_k exp(x_k); bottom and top may be one blob.

    backward, from the top's data y: dx_c = y_c (dy_c - sum_k y_k dy_k).

    Source: Caffe src/caffe/layers/softmax_layer.cpp.
    """

    parameters = (AXIS,)
    bottoms = ("scores",)
    tops = ("probabilities",)

    def reshape(self, bottom, top):
        with naming(type(self).__name__):
            self._layout = Layout.of(bottom[0].shape, self.params["axis"])
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        _forward(self._layout, bottom[0].data, top[0].data)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            _backward(self._layout, top[0].data, top[0].diff, bottom[0].diff)

    def onnx(self, op, scores):
        axis = self.params["axis"]
        top = op.Softmax(scores, axis=axis)

        def gradient(top_diff):
            if top_diff is None:
                return [None]
            mean = op.ReduceSum(op.Mul(top, top_diff), [axis], keepdims=1)
            return [op.Mul(op.Sub(top_diff, mean), top)]

        op.define_gradient([top], [scores], gradient)
        return top
