"""What the losses' ONNX expressions share: the target, products, sums, logarithms that keep their digits."""

from __future__ import annotations

import numpy as np

from caffe_layers import normalization
from caffe_layers.contract import ShapeError

HIGHEST = float(np.finfo(np.float32).max)
"""What an exported graph keeps losses below, so that finite scores of any size give no infinity there."""


class OnnxTarget:
    """The scores, their channels and the mode of normalization; ``position_dims`` are their dims with 1 channel."""

    def __init__(self, op, params, scores, default_normalization):
        self.op, self.params, self.scores = op, params, scores
        self.shape = op.shape(scores)
        self.axis = params["axis"] % len(self.shape)
        self.channels = self.shape[self.axis]
        if isinstance(self.channels, str):
            raise ShapeError(
                f"the scores {self.shape} cannot be exported with axis {self.axis}: that dim must be a number"
            )
        self.position_dims = self.shape[: self.axis] + (1,) + self.shape[self.axis + 1 :]
        self.mode = normalization.mode(params, default_normalization)

    def per_class(self, values):
        """A list of numbers, one per class, as an array that broadcasts with the scores."""
        return np.reshape(values, (-1,) + (1,) * (len(self.shape) - self.axis - 1))


def product(op, *values):
    """The ONNX product of those values that are not None (nor the number 1), or None where there are none."""
    result = None
    for value in values:
        if value is not None and not (isinstance(value, float) and value == 1.0):
            result = value if result is None else op.Mul(result, value)
    return result


def onnx_sum(op, values):
    """The ONNX sum of all values, as a scalar: over one axis in their own dtype, then in float64.

    One float32 sum of millions of values loses their digits.
    """
    shape = op.shape(values)
    axes = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    if axes:
        values = op.ReduceSum(values, [axes[-1]], keepdims=1)
    return op.cast(op.ReduceSum(op.cast(values, "float64"), keepdims=0), values)


def onnx_log1p(op, x):
    """log(1 + x) for an x of 0 or more. With u = 1 + x rounded, x - (u - 1) is what the rounding has lost."""
    u = op.Add(x, 1)
    return op.Add(op.Log(u), op.Div(op.Sub(x, op.Sub(u, 1)), u))


def onnx_log1p_of_exp_of_minus(op, distance):
    """log(1 + exp(-distance)) for a distance of 0 or more, in three parts to be added.

    Not by Softplus, which has no vector instructions in ONNX Runtime. With u = 1 + e rounded, e + (1 - u) is what the
    rounding has lost, and the whole of it where u is 1.
    """
    e = op.Exp(op.Neg(distance))
    u = op.Add(e, 1)
    return op.Log(u), e, op.Sub(1, u)
