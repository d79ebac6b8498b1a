"""Sigmoid: p = 1 / (1 + exp(-x)), element by element."""

from __future__ import annotations

import numpy as np

from caffe_layers import engine
from caffe_layers.blocks import Workspace, run
from caffe_layers.layer import PluginLayer, naming
from caffe_layers.loss import as_scores
from caffe_layers.targets import Layout


def sigmoid(scores):
    """The sigmoid of a float32 or float64 array, as an array of the same shape and dtype. Raises LayerError (dtype).

    Examples:
        >>> from caffe_layers.functional import sigmoid
        >>> sigmoid([0.0, 2.0, -2.0]).round(3)
        array([0.5  , 0.881, 0.119])
    """
    with naming("sigmoid"):
        scores = as_scores(scores)
    result = np.empty(scores.shape, scores.dtype)
    _forward(scores, result, Workspace())
    return result


def halves(scores):
    """exp(-|x|), and the larger and the smaller one of p and 1 - p; none of them overflows or cancels."""
    e = np.abs(scores)
    np.negative(e, out=e)
    np.exp(e, out=e)
    larger = 1 / (1 + e)
    return e, larger, e * larger


def write_sigmoid(x, result):
    """Write the sigmoid of a block of scores; both may be one array."""
    if np.minimum.reduce(x, axis=None, initial=0) < -80:
        _, larger, smaller = halves(x)
        result[...] = np.where(x < 0, smaller, larger)
        return
    np.negative(x, out=result)
    np.exp(result, out=result)
    result += 1
    np.divide(1, result, out=result)


def _forward(scores, result, workspace):
    layout = Layout(scores.shape, 0, scores.size, 1, 1)
    x, p = layout.channelwise(scores), layout.channelwise(result)
    fast = engine.compiled("caffe_layers.compiled.activations", scores.dtype)

    def work(block, _):
        if fast is None:
            write_sigmoid(block.of(x), block.of(p))
        else:
            fast.sigmoid(block.of(x).reshape(-1), block.of(p).reshape(-1))

    with np.errstate(all="ignore"):
        run(layout, workspace, work, compiled=fast is not None)


class SigmoidLayer(PluginLayer):
    """p = 1 / (1 + exp(−x)). Bottom and top may be one blob.

    The gradient, from the top's data y: dx = dy y (1 − y). As Caffe's Sigmoid; the smallest probabilities stay apart
    from 0 down to the smallest float32 (Caffe computes ½ tanh(x/2) + ½, which is 0 from about x = −17).

    Source: Caffe src/caffe/layers/sigmoid_layer.cpp.
    """

    bottoms = ("scores",)
    tops = ("probabilities",)
    function = staticmethod(sigmoid)

    def reshape(self, bottom, top):
        self._workspace = getattr(self, "_workspace", None) or Workspace()
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        _forward(bottom[0].data, top[0].data, self._workspace)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            layout = Layout(top[0].data.shape, 0, top[0].data.size, 1, 1)
            arrays = [layout.channelwise(array) for array in (top[0].data, top[0].diff, bottom[0].diff)]

            def work(block, own_workspace):
                p, dp, dx = (block.of(array) for array in arrays)
                slope = np.subtract(1, p, out=own_workspace.array("slope", p.shape, p.dtype))
                slope *= p
                np.multiply(dp, slope, out=dx)

            run(layout, self._workspace, work)

    def onnx(self, op, scores):
        top = op.Sigmoid(scores)

        def gradient(top_diff):
            return [None if top_diff is None else op.Mul(top_diff, op.Mul(top, op.Sub(1, top)))]

        op.define_gradient([top], [scores], gradient)
        return top
