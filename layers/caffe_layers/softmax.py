"""Softmax: p_c = exp(x_c) / sum_k exp(x_k) over the channels of each position."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from caffe_layers import engine
from caffe_layers.blocks import Workspace, run
from caffe_layers.layer import PluginLayer, naming
from caffe_layers.loss import AXIS, as_scores
from caffe_layers.targets import Layout

SAFE = 1e30
"""Sums of exponentials below this, and above 1 over this, have all the digits of float32."""
_LARGEST = float(np.finfo(np.float64).max)
_CHANNELS = 32
"""So many channels are summed before the sum goes on in float64."""
_SMALL = 4096
"""Up to so many values, the overhead of a call counts for more than what it does."""
_MODERATE = 1e5
"""Where the squares of all scores sum to less, all exponentials and their ratios are within 1e-280 and 1e280."""


def sum_over_channels(values, factors=None):
    """The sums over the channels of n x C x s values, or of their products with factors: n x s, float64.

    Large ones are summed in the values' own dtype, in so many parts that no digits are lost.
    """
    n, channels, s = values.shape
    if factors is None and values.size <= _SMALL:
        if s == 1:
            total = np.dot(values.reshape(n, channels), _ones(channels, values.dtype))
            return total.astype(np.float64, copy=False).reshape(n, 1)
        return np.add.reduce(values, axis=1, dtype=np.float64)
    if s == 1:
        if factors is None:
            return np.einsum("ncs->ns", values).astype(np.float64)
        return np.einsum("ncs,ncs->ns", values, factors).astype(np.float64)
    total = np.zeros((n, s))
    for start in range(0, channels, _CHANNELS):
        part = values[:, start : start + _CHANNELS]
        if factors is not None:
            part = part * factors[:, start : start + _CHANNELS]
        total += np.add.reduce(part, axis=1)
    return total


@lru_cache(maxsize=16)
def _ones(number, dtype):
    return np.ones(number, dtype)


def are_few_moderate(scores):
    """Whether they are few, so that float64 costs nothing more, and all in its range with their exponentials."""
    if scores.size > _SMALL:
        return False
    flat = scores.reshape(-1)
    return np.dot(flat, flat) < _MODERATE


def are_safe(smallest, largest):
    """Whether no value is beyond what float32 holds with all digits, or NaN."""
    return (
        np.minimum.reduce(smallest, axis=None, initial=1) > 1 / SAFE
        and np.maximum.reduce(largest, axis=None, initial=0) < SAFE
    )


def shifted(scores, positions):
    """The scores of the positions in the mask, as rows of float64 of which the largest is 0."""
    rows = scores.transpose(0, 2, 1)[positions].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    # The distance of two finite scores can be more than the dtype holds, and 0 times infinity is no number.
    return np.maximum(rows, -_LARGEST, out=rows)


def softmax(scores, axis=1):
    """The softmax of a float32 or float64 array over ``axis``, as an array of the same shape and dtype.

    Raises LayerError (dtype), ParameterError (axis).

    Examples:
        >>> from caffe_layers.functional import softmax
        >>> softmax([[1.0, 2.0, 4.0]]).round(3)
        array([[0.042, 0.114, 0.844]])
    """
    with naming("softmax"):
        scores = as_scores(scores)
        layout = Layout.of(scores.shape, axis)
    probabilities = np.empty(scores.shape, scores.dtype)
    _forward(layout, layout.channelwise(scores), layout.channelwise(probabilities), Workspace())
    return probabilities


def write_softmax(x, p, workspace):
    """Write the softmax of a block of scores; both may be one array."""
    if np.may_share_memory(x, p):
        x = workspace.array("scores", x.shape, x.dtype)
        x[...] = p
    # Without subtracting the largest score, which costs a pass, unless a position needs it.
    np.exp(x, out=p)
    total = sum_over_channels(p)
    inverse = 1 / total
    if not are_safe(total, total):
        far = ~((total < SAFE) & (total > 1 / SAFE))
        e = np.exp(shifted(x, far))
        p.transpose(0, 2, 1)[far] = e
        inverse[far] = 1 / e.sum(axis=1)
    p *= inverse[:, None].astype(p.dtype)


def _forward(layout, scores, probabilities, workspace):
    fast = engine.compiled("caffe_layers.compiled.activations", scores.dtype)

    def work(block, own):
        if fast is None:
            write_softmax(block.of(scores), block.of(probabilities), own)
        else:
            fast.softmax_block(scores, block, probabilities)

    with np.errstate(all="ignore"):
        run(layout, workspace, work, compiled=fast is not None)


def _backward(layout, probabilities, probability_diff, score_diff, workspace):
    """dL/dx_c = p_c (dL/dp_c - sum_k p_k dL/dp_k); the two diffs may be one array."""

    def work(block, _):
        p, dp, dx = block.of(probabilities), block.of(probability_diff), block.of(score_diff)
        np.subtract(dp, sum_over_channels(p, dp)[:, None].astype(dp.dtype), out=dx)
        dx *= p

    run(layout, workspace, work)


class SoftmaxLayer(PluginLayer):
    """p_c = exp(x_c) / Σ_k exp(x_k) over the channels. Bottom and top may be one blob.

    The gradient, from the top's data y: dx_c = y_c (dy_c − Σ_k y_k dy_k). As Caffe's Softmax.

    Source: Caffe src/caffe/layers/softmax_layer.cpp.
    """

    parameters = (AXIS,)
    bottoms = ("scores",)
    tops = ("probabilities",)
    function = staticmethod(softmax)

    def reshape(self, bottom, top):
        with naming(type(self).__name__):
            self._layout = Layout.of(bottom[0].shape, self.params["axis"])
        self._workspace = getattr(self, "_workspace", None) or Workspace()
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        view = self._layout.channelwise
        _forward(self._layout, view(bottom[0].data), view(top[0].data), self._workspace)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            view = self._layout.channelwise
            _backward(self._layout, view(top[0].data), view(top[0].diff), view(bottom[0].diff), self._workspace)

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
