"""Layers that map each element by a function of one number: AbsVal, Clip, Exp, Log, Power, Threshold.

Source: Caffe src/caffe/layers/absval_layer.cpp, clip_layer.cpp, exp_layer.cpp, log_layer.cpp, power_layer.cpp,
threshold_layer.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import MOST_FLOAT, Float, Values
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("AbsVal")
def absval(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """|x|"""
    return op.Abs(x)


@layer_type("Clip", clip_param={"min": Float(), "max": Float()})
def clip(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x, or the nearer of ``min`` and ``max`` where x lies outside; the gradient passes at both ends."""
    p = layer.clip_param
    if p.min is None or p.max is None:
        raise layer.error("give clip_param { min: … max: … }: both are required")
    if not p.min <= p.max:
        raise layer.error(f"min {p.min:g} must not be above max {p.max:g}")
    return op.Clip(x, p.min, p.max)


EXPONENT = {"base": Float(-1.0), "scale": Float(1.0), "shift": Float(0.0)}
"""The fields of ExpParameter and of LogParameter."""


@layer_type("Exp", exp_param=EXPONENT)
def exp(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """base ^ (shift + scale · x); base -1 is e."""
    p = layer.exp_param
    log_of_base = _log_of_base(layer, p)
    y = op.Exp(_times(op, x, log_of_base * p.scale))
    # a factor of its own, as in Caffe, so that both overflow alike
    with np.errstate(over="ignore"):
        factor = float(np.exp(log_of_base * p.shift))
    return _times(op, y, factor if factor <= MOST_FLOAT else math.inf)


@layer_type("Log", log_param=EXPONENT)
def log(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The logarithm of shift + scale · x to the base ``base``; base -1 is e."""
    p = layer.log_param
    log_of_base = _log_of_base(layer, p)
    if log_of_base == 0:
        raise layer.error("base 1 has no logarithm: give another base")
    y = _times(op, x, p.scale)
    y = op.Add(y, p.shift) if p.shift else y
    return _times(op, op.Log(y), 1 / log_of_base)


def _log_of_base(layer: Layer, p: Values) -> float:
    """The natural logarithm of ``base``, where -1 stands for e."""
    if p.base == -1:
        return 1.0
    if not 0 < p.base < math.inf:
        raise layer.error(f"base {p.base:g} must be above 0, or -1 for e")
    return math.log(p.base)


@layer_type("Power", power_param={"power": Float(1.0), "scale": Float(1.0), "shift": Float(0.0)})
def power(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """(shift + scale · x) ^ power"""
    p = layer.power_param
    if p.power == 0 or p.scale == 0:
        with np.errstate(all="ignore"):  # 0 to a negative power is inf, as in C
            constant = np.power(np.float32(p.shift), np.float32(p.power))
        return op.Add(op.zeros(x), float(constant))
    y = x if p.scale == 1 else op.Mul(x, p.scale)
    y = y if p.shift == 0 else op.Add(y, p.shift)
    if p.power == 2:
        return op.Mul(y, y)
    return y if p.power == 1 else op.Pow(y, p.power)


@layer_type("Threshold", threshold_param={"threshold": Float(0.0)})
def threshold(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """1 where x > threshold, elsewhere 0; no gradient passes."""
    return op.cast(op.Greater(x, layer.threshold_param.threshold), x)


def _times(op: Builder, x: ir.Value, factor: float) -> ir.Value:
    return x if factor == 1 else op.Mul(x, factor)
