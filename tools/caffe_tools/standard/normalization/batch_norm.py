"""BatchNorm: each channel brought to mean 0 and variance 1, by the batch's statistics or by stored ones.

Source: Caffe src/caffe/layers/batch_norm_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float
from caffe_tools.standard.layer import FACTOR, MEAN, VARIANCE, Layer
from caffe_tools.standard.registry import layer_type


def _factor_and_summand(layer: Layer, sums: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """What each channel is multiplied and shifted by, where the stored statistics serve."""
    if not _uses_stored(layer):
        return None
    mean, variance, weight = sums
    share = 0.0 if weight[0] == 0 else 1 / weight[0]
    factor = 1 / np.sqrt(variance * share + layer.batch_norm_param.eps)
    return factor, -mean * share * factor


@layer_type(
    "BatchNorm",
    per_channel=_factor_and_summand,
    batch_norm_param={"use_global_stats": Bool(None), "moving_average_fraction": Float(0.999), "eps": Float(1e-5)},
)
def batch_norm(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """(x − mean) / √(variance + eps), channel by channel (axis 1).

    The stored blobs are running sums of mean and variance and their common weight, by which both are divided. With
    ``use_global_stats`` (default: in TEST) these serve; else the batch's own do, and the sums move on.
    """
    p, shape = layer.batch_norm_param, layer.expect_axes(0, x, 2, math.inf)
    if any(spec.lr_mult for spec in layer.spec.params):
        raise layer.error("lr_mult must be 0: its stored blobs are statistics, which no solver may change", "param")
    channels = shape[1]
    sums = [layer.statistic((channels,), MEAN), layer.statistic((channels,), VARIANCE), layer.statistic((1,), FACTOR)]
    return _by_stored(op, x, p.eps, sums) if _uses_stored(layer) else _by_batch(op, layer, x, sums)


def _uses_stored(layer: Layer) -> bool:
    stored = layer.batch_norm_param.use_global_stats
    return layer.phase == "TEST" if stored is None else stored


def _by_stored(op: Builder, x: ir.Value, eps: float, sums: list[ir.Value]) -> ir.Value:
    weight = sums[2]
    factor = op.Where(op.Equal(weight, 0), 0, op.Reciprocal(weight))
    mean, variance = op.Mul(sums[0], factor), op.Mul(sums[1], factor)
    ones, zeros = op.Add(op.zeros(mean), 1), op.zeros(mean)
    return op.BatchNormalization(x, ones, zeros, mean, variance, epsilon=eps)


def _by_batch(op: Builder, layer: Layer, x: ir.Value, sums: list[ir.Value]) -> ir.Value:
    p, rank = layer.batch_norm_param, len(op.shape(x))
    axes = [axis for axis in range(rank) if axis != 1]
    mean = op.ReduceMean(x, axes, keepdims=1)
    centered = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centered, centered), axes, keepdims=1)
    deviation = op.Sqrt(op.Add(variance, p.eps))
    y = op.Div(centered, deviation)

    define_normalized_gradient(op, y, x, axes, deviation)
    fraction, count = p.moving_average_fraction, op.count(x, axes)
    # the running variance is the unbiased one, the output uses the biased one
    unbiased = op.Mul(variance, op.Div(count, op.Max(op.Sub(count, 1), 1)))
    channels = op.shape(sums[0])
    layer.update(0, op.Add(op.Mul(sums[0], fraction), op.reshape(mean, channels)))
    layer.update(1, op.Add(op.Mul(sums[1], fraction), op.reshape(unbiased, channels)))
    layer.update(2, op.Add(op.Mul(sums[2], fraction), 1))
    return y


def define_normalized_gradient(op: Builder, y: ir.Value, x: ir.Value, axes: Sequence[int], divisor: ir.Value) -> None:
    """The gradient of y = (x − mean(x)) / divisor: (dy − mean(dy) − y · mean(dy · y)) / divisor, means over ``axes``.

    It is exact where the divisor is the deviation; an eps added to that Caffe takes for 0 in y's derivative.
    """

    def gradient(dy: ir.Value) -> list[ir.Value]:
        along = op.Mul(y, op.ReduceMean(op.Mul(dy, y), axes, keepdims=1))
        return [op.Div(op.Sub(op.Sub(dy, op.ReduceMean(dy, axes, keepdims=1)), along), divisor)]

    op.define_gradient([y], [x], gradient)
