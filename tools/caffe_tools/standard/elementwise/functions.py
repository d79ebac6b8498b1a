"""Layers that map each element by a function: AbsVal, BNLL, Clip, ELU, Exp, Log, Swish, Threshold.

Source: Caffe src/caffe/layers/absval_layer.cpp, bnll_layer.cpp, clip_layer.cpp, elu_layer.cpp, exp_layer.cpp,
log_layer.cpp, swish_layer.cpp, threshold_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Float, Values
from caffe_tools.prototxt.messages import ENGINE
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("AbsVal")
def absval(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """|x|"""
    return op.Abs(x)


@layer_type("BNLL")
def bnll(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """log(1 + exp(x)), the binomial normal log likelihood."""
    return op.Softplus(x)


@layer_type("Clip", clip_param={"min": Float(), "max": Float()})
def clip(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x, or the nearer of ``min`` and ``max`` where x lies outside; the gradient passes at both ends."""
    p = layer.clip_param
    if p.min is None or p.max is None:
        raise layer.error("give clip_param { min: … max: … }: both are required")
    if not p.min <= p.max:
        raise layer.error(f"min {p.min:g} must not be above max {p.max:g}")
    return op.Clip(x, p.min, p.max)


@layer_type("ELU", elu_param={"alpha": Float(1.0)})
def elu(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x where x > 0, elsewhere alpha · (exp(x) − 1)."""
    return op.Elu(x, alpha=layer.elu_param.alpha)


def _log_of_base(layer: Layer, p: Values) -> float:
    """The natural logarithm of ``base``, where -1 stands for e."""
    if p.base == -1:
        return 1.0
    if not 0 < p.base < math.inf:
        raise layer.error(f"base {p.base:g} must be above 0, or -1 for e")
    return math.log(p.base)


EXPONENT = {"base": Float(-1.0), "scale": Float(1.0), "shift": Float(0.0)}
"""The fields of ExpParameter and of LogParameter."""


@layer_type("Exp", exp_param=EXPONENT)
def exp(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """base ^ (shift + scale · x); base -1 is e."""
    p = layer.exp_param
    log_of_base = _log_of_base(layer, p)
    y = op.Exp(_times(op, x, log_of_base * p.scale))
    # a factor of its own, as in Caffe, so that both overflow alike
    return _times(op, y, math.exp(log_of_base * p.shift))


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


@layer_type("Swish", swish_param={"beta": Float(1.0), "engine": ENGINE})
def swish(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x · sigmoid(beta · x)"""
    return op.Mul(x, op.Sigmoid(_times(op, x, layer.swish_param.beta)))


@layer_type("Threshold", threshold_param={"threshold": Float(0.0)})
def threshold(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """1 where x > threshold, elsewhere 0; no gradient passes."""
    return op.cast(op.Greater(x, layer.threshold_param.threshold), x)


def _times(op: Builder, x: ir.Value, factor: float) -> ir.Value:
    return x if factor == 1 else op.Mul(x, factor)
