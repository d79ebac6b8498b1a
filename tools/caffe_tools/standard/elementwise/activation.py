"""Activations: ReLU, ReLU6, PReLU, ELU, BNLL, Sigmoid, TanH, Swish, Softmax; and Dropout.

Source: Caffe src/caffe/layers/relu_layer.cpp, prelu_layer.cpp, elu_layer.cpp, bnll_layer.cpp, sigmoid_layer.cpp,
tanh_layer.cpp, swish_layer.cpp, softmax_layer.cpp, dropout_layer.cpp; the SSD forks' src/caffe/layers/relu6_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Int, Submessage
from caffe_tools.prototxt.messages import ENGINE, FILLER
from caffe_tools.standard.layer import Layer, filler_of
from caffe_tools.standard.registry import layer_type


@layer_type("ReLU", relu_param={"negative_slope": Float(0.0), "engine": ENGINE})
def relu(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """max(x, 0) + negative_slope · min(x, 0); the slope counts at 0."""
    slope = layer.relu_param.negative_slope
    return op.LeakyRelu(x, alpha=slope) if slope else op.Relu(x)


@layer_type("ReLU6", relu6_param={"engine": ENGINE})
def relu6(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """min(max(x, 0), 6); the gradient passes between 0 and 6, without either end."""
    y = op.Clip(x, 0.0, 6.0)
    op.define_gradient([y], [x], lambda dy: [op.Where(op.And(op.Greater(x, 0), op.Less(x, 6)), dy, 0)])
    return y


@layer_type("PReLU", prelu_param={"filler": Submessage(FILLER), "channel_shared": Bool(False)})
def prelu(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """max(x, 0) + slope · min(x, 0) with a learnable slope for each channel (axis 1), or one for all."""
    p, shape = layer.prelu_param, layer.expect_axes(0, x, 2, math.inf)
    slope = layer.parameter(() if p.channel_shared else (shape[1],), filler_of(p, "filler", 0.25))
    if not p.channel_shared:
        slope = op.Reshape(slope, [shape[1]] + [1] * (len(shape) - 2))
    return op.PRelu(x, slope)


@layer_type("ELU", elu_param={"alpha": Float(1.0)})
def elu(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x where x > 0, elsewhere alpha · (exp(x) − 1)."""
    return op.Elu(x, alpha=layer.elu_param.alpha)


@layer_type("BNLL")
def bnll(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """log(1 + exp(x)), the binomial normal log likelihood."""
    return op.Softplus(x)


@layer_type("Sigmoid", sigmoid_param={"engine": ENGINE})
def sigmoid(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """0.5 · tanh(0.5 · x) + 0.5"""
    return op.Sigmoid(x)


@layer_type("TanH", tanh_param={"engine": ENGINE})
def tanh(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent."""
    return op.Tanh(x)


@layer_type("Swish", swish_param={"beta": Float(1.0), "engine": ENGINE})
def swish(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """x · sigmoid(beta · x)"""
    beta = layer.swish_param.beta
    return op.Mul(x, op.Sigmoid(x if beta == 1 else op.Mul(x, beta)))


@layer_type("Softmax", softmax_param={"engine": ENGINE, "axis": Int(1)})
def softmax(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """exp(x) / Σ exp(x), summed along ``axis``."""
    return op.Softmax(x, axis=layer.axis(layer.softmax_param.axis, x))


@layer_type("Dropout", dropout_param={"dropout_ratio": Float(0.5)})
def dropout(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """In TRAIN each element is dropped with probability dropout_ratio and the others are divided by 1 − dropout_ratio;
    in TEST nothing happens."""
    ratio = layer.dropout_param.dropout_ratio
    if not 0 <= ratio < 1:
        raise layer.error(f"dropout_ratio {ratio} must be at least 0 and less than 1")
    if layer.phase == "TEST":
        return x
    kept = op.cast(op.GreaterOrEqual(layer.random_uniform(x), ratio), x)
    return op.Mul(x, op.Mul(kept, 1 / (1 - ratio)))
