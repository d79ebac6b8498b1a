"""Gradients of the elementwise ops, and of Softmax and LogSoftmax. Broadcast inputs get their diffs summed back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.rules import NodeGradient, elementwise, rule, sum_to_shape

elementwise("Add", lambda n: n.dy)
elementwise("Sum", lambda n: n.dy)
elementwise("Sub", lambda n: n.dy, lambda n: n.op.Neg(n.dy))
elementwise("Mul", lambda n: n.op.Mul(n.dy, n.x[1]), lambda n: n.op.Mul(n.dy, n.x[0]))
elementwise("Div", lambda n: n.op.Div(n.dy, n.x[1]), lambda n: n.op.Neg(n.op.Div(n.op.Mul(n.dy, n.y[0]), n.x[1])))
elementwise("Neg", lambda n: n.op.Neg(n.dy))
elementwise("Identity", lambda n: n.dy)
elementwise("Abs", lambda n: n.op.Mul(n.dy, n.op.Sign(n.x[0])))
elementwise("Reciprocal", lambda n: n.op.Neg(n.op.Mul(n.dy, n.op.Mul(n.y[0], n.y[0]))))
elementwise("Sqrt", lambda n: n.op.Div(n.op.Mul(n.dy, 0.5), n.y[0]))
elementwise("Exp", lambda n: n.op.Mul(n.dy, n.y[0]))
elementwise("Log", lambda n: n.op.Div(n.dy, n.x[0]))
elementwise("Sin", lambda n: n.op.Mul(n.dy, n.op.Cos(n.x[0])))
elementwise("Cos", lambda n: n.op.Neg(n.op.Mul(n.dy, n.op.Sin(n.x[0]))))
elementwise("Erf", lambda n: n.op.Mul(n.dy, n.op.Mul(2 / np.sqrt(np.pi), n.op.Exp(n.op.Neg(n.op.Mul(n.x[0], n.x[0]))))))


def _pow_by_base(n: NodeGradient) -> ir.Value:
    """dy · x1 · x0^(x1 − 1), with no Pow for the exponents 1, 2 and 3."""
    op, base = n.op, n.x[0]
    exponent = n.constant(1)
    if exponent is not None and exponent.size == 1:
        value = float(exponent.reshape(()))
        if value == 0:
            return op.zeros(n.y[0])
        if value == 1:
            return n.dy
        power = base if value == 2 else op.Mul(base, base) if value == 3 else op.Pow(base, value - 1)
        return op.Mul(n.dy, op.Mul(power, value))
    return op.Mul(n.dy, op.Mul(n.x[1], op.Pow(base, op.Sub(n.x[1], 1))))


def _pow_by_exponent(n: NodeGradient) -> ir.Value:
    """dy · y · log x0, which is 0 where x0 is 0."""
    positive = n.op.Greater(n.x[0], 0)
    return n.op.Mul(n.dy, n.op.Mul(n.y[0], n.op.Log(n.op.Where(positive, n.x[0], 1))))


elementwise("Pow", _pow_by_base, _pow_by_exponent)

# Activations ---------------------------------------------------------------------------------------------------------

elementwise("Sigmoid", lambda n: n.op.Mul(n.dy, n.op.Mul(n.y[0], n.op.Sub(1, n.y[0]))))
elementwise("Tanh", lambda n: n.op.Mul(n.dy, n.op.Sub(1, n.op.Mul(n.y[0], n.y[0]))))
elementwise("Relu", lambda n: n.op.Where(n.op.Greater(n.x[0], 0), n.dy, 0))
elementwise("Softplus", lambda n: n.op.Mul(n.dy, n.op.Sigmoid(n.x[0])))
elementwise(
    "LeakyRelu", lambda n: n.op.Where(n.op.Greater(n.x[0], 0), n.dy, n.op.Mul(n.dy, n.attribute("alpha", 0.01)))
)
elementwise(
    "PRelu",
    lambda n: n.op.Where(n.op.Greater(n.x[0], 0), n.dy, n.op.Mul(n.dy, n.x[1])),
    lambda n: n.op.Where(n.op.Greater(n.x[0], 0), 0, n.op.Mul(n.dy, n.x[0])),
)
elementwise(
    "Elu",
    lambda n: n.op.Where(n.op.Greater(n.x[0], 0), n.dy, n.op.Mul(n.dy, n.op.Add(n.y[0], n.attribute("alpha", 1.0)))),
)


@rule("HardSigmoid")
def hard_sigmoid(n: NodeGradient, index: int) -> ir.Value:
    """α · dy where 0 < y < 1."""
    op, y = n.op, n.y[0]
    return op.Where(op.And(op.Greater(y, 0), op.Less(y, 1)), op.Mul(n.dy, n.attribute("alpha", 0.2)), 0)


@rule("Clip")
def clip(n: NodeGradient, index: int) -> ir.Value | None:
    """dy where min ≤ x ≤ max, both ends included."""
    if index != 0:
        raise n.error("the bounds of a Clip have none")
    op, inside = n.op, None
    for bound, compare in zip(n.x[1:], (op.GreaterOrEqual, op.LessOrEqual), strict=False):
        if bound is not None:
            kept = compare(n.x[0], bound)
            inside = kept if inside is None else op.And(inside, kept)
    return n.dy if inside is None else op.Where(inside, n.dy, 0)


elementwise("Where", None, lambda n: n.op.Where(n.x[0], n.dy, 0), lambda n: n.op.Where(n.x[0], 0, n.dy))


@rule("Max", "Min")
def extremum(n: NodeGradient, index: int) -> ir.Value:
    """dy to the first input that attains the extremum."""
    op, chosen = n.op, n.op.Equal(n.x[index], n.y[0])
    for earlier in n.x[:index]:
        chosen = op.And(chosen, op.Not(op.Equal(earlier, n.y[0])))
    return sum_to_shape(op, op.Where(chosen, n.dy, 0), n.x[index])


@rule("Cast")
def cast(n: NodeGradient, index: int) -> ir.Value:
    return n.op.cast(n.dy, n.x[0])


@rule("Softmax")
def softmax(n: NodeGradient, index: int) -> ir.Value:
    """y · (dy − Σ dy·y)"""
    op, axis = n.op, n.attribute("axis", -1)
    return op.Mul(n.y[0], op.Sub(n.dy, op.ReduceSum(op.Mul(n.dy, n.y[0]), [axis], keepdims=1)))


@rule("LogSoftmax")
def log_softmax(n: NodeGradient, index: int) -> ir.Value:
    """dy − exp(y) · Σ dy"""
    op, axis = n.op, n.attribute("axis", -1)
    return op.Sub(n.dy, op.Mul(op.Exp(n.y[0]), op.ReduceSum(n.dy, [axis], keepdims=1)))
