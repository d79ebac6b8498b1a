"""Steps of which random graphs are made: for each ONNX op that has a gradient rule what it computes, in ONNX and torch.

A step takes a value x of a shape that fits, and further values of the shapes that it names. Where an op has a domain,
or values grow from step to step, the step keeps within bounds by what it does before or after the op. Attributes are
numbers that float32 holds exactly, as ONNX stores them in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SHAPES = [(2, 3), (1, 4), (3, 1), (4, 5), (2, 3, 4), (1, 2, 3), (2, 2, 3, 3), (1, 4, 4, 4), (2, 3, 4, 6), (1, 9, 3, 4)]
"""What a graph begins with."""


@dataclass(frozen=True)
class Step:
    onnx: Callable[..., Any]
    """``onnx(op, x, *more)``"""
    torch: Callable[..., Any]
    """``torch(t, x, *more)``, with t the module."""
    more: Callable[[tuple], list[tuple]] = lambda shape: []
    """The shapes of the further values, for x of that shape."""
    fits: Callable[[tuple], bool] = lambda shape: True


def row(shape):
    return [shape[-1:]]


def alike(shape):
    return [shape]


def is_image(shape):
    return len(shape) == 4


def is_large_image(shape):
    return len(shape) == 4 and min(shape[2:]) >= 3


def last_is_many(shape):
    return shape[-1] >= 3


def channels(t, value):
    return value.reshape(1, -1, 1, 1)


def bell(t, x):
    """Between 1/e and e, for what needs positive numbers."""
    return t.exp(t.sin(x))


def onnx_bell(op, x):
    return op.Exp(op.Sin(x))


def pick(values, *shape):
    """Indices from 0 to ``values`` − 1, with repeats."""
    return (np.arange(math.prod(shape)) * 2 % values).reshape(shape)


def torch_lrn(t, x):
    size, alpha, beta, bias = 3, 0.5, 0.625, 2.0
    squares = t.nn.functional.pad(x * x, (0, 0, 0, 0, 1, 1))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (bias + alpha / size * total) ** beta


def torch_space_to_depth(t, x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def torch_depth_to_space(t, x):
    n, c, h, w = x.shape
    return x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def torch_batch_norm(t, x, scale, bias, mean, variance):
    deviation = t.sqrt(bell(t, channels(t, variance)) + 2**-10)
    return (x - channels(t, mean)) / deviation * channels(t, scale) + channels(t, bias)


def unary(name, torch_function=None):
    function = torch_function or (lambda t, x: getattr(t, name.lower())(x))
    return Step(lambda op, x: op.node(name, [x], 1, {})[0], function)


STEPS = {
    # arithmetic
    "Add": Step(lambda op, x, a: op.Add(x, a), lambda t, x, a: x + a, row),
    "Sum": Step(lambda op, x, a, b: op.Sum(a, x, b), lambda t, x, a, b: a + x + b, lambda s: [s, s[-1:]]),
    "Sub": Step(lambda op, x, a: op.Sub(a, x), lambda t, x, a: a - x, alike),
    "Mul": Step(lambda op, x, a: op.Mul(x, a), lambda t, x, a: x * a, lambda s: [s[:1] + (1,) * (len(s) - 1)]),
    "Div": Step(lambda op, x, a: op.Div(x, onnx_bell(op, a)), lambda t, x, a: x / bell(t, a), alike),
    "Neg": unary("Neg"),
    "Identity": unary("Identity", lambda t, x: x),
    "Dropout": unary("Dropout", lambda t, x: x),
    "Cast": Step(lambda op, x: op.Cast(x, to="float64"), lambda t, x: x),
    "Abs": unary("Abs"),
    "Sin": unary("Sin"),
    "Cos": unary("Cos"),
    "Erf": unary("Erf"),
    "Exp": Step(lambda op, x: op.Exp(op.Sin(x)), lambda t, x: t.exp(t.sin(x))),
    "Reciprocal": Step(lambda op, x: op.Reciprocal(onnx_bell(op, x)), lambda t, x: 1 / bell(t, x)),
    "Sqrt": Step(lambda op, x: op.Sqrt(onnx_bell(op, x)), lambda t, x: t.sqrt(bell(t, x))),
    "Log": Step(lambda op, x: op.Log(op.Add(onnx_bell(op, x), 0.1)), lambda t, x: t.log(bell(t, x) + 0.1)),
    "Pow": Step(lambda op, x, a: op.Pow(onnx_bell(op, x), a), lambda t, x, a: bell(t, x) ** a, row),
    "Clip": Step(lambda op, x: op.Clip(x, -0.5, 0.7), lambda t, x: t.clamp(x, -0.5, 0.7)),
    "Where": Step(
        lambda op, x, a: op.Where(op.Greater(x, a), op.Mul(x, 2), a), lambda t, x, a: t.where(x > a, x * 2, a), row
    ),
    "Max": Step(lambda op, x, a: op.Max(x, a), lambda t, x, a: t.maximum(x, a), row),
    "Min": Step(lambda op, x, a: op.Min(a, x), lambda t, x, a: t.minimum(a, x), row),
    # activations
    "Sigmoid": unary("Sigmoid"),
    "Tanh": unary("Tanh"),
    "Relu": unary("Relu"),
    "Softplus": unary("Softplus", lambda t, x: t.nn.functional.softplus(x, threshold=100)),
    "LeakyRelu": Step(lambda op, x: op.LeakyRelu(x, alpha=0.25), lambda t, x: t.nn.functional.leaky_relu(x, 0.25)),
    "PRelu": Step(lambda op, x, a: op.PRelu(x, a), lambda t, x, a: t.where(x > 0, x, a * x), row),
    "HardSigmoid": Step(
        lambda op, x: op.HardSigmoid(x, alpha=0.5, beta=0.25), lambda t, x: t.clamp(0.5 * x + 0.25, 0, 1)
    ),
    "Elu": Step(lambda op, x: op.Elu(x, alpha=1.5), lambda t, x: t.nn.functional.elu(x, 1.5)),
    "Softmax": Step(lambda op, x: op.Softmax(x, axis=1), lambda t, x: t.softmax(x, 1)),
    "LogSoftmax": Step(lambda op, x: op.LogSoftmax(x, axis=-1), lambda t, x: t.log_softmax(x, -1)),
    # reductions
    "ReduceSum": Step(lambda op, x: op.ReduceSum(x, [-1], keepdims=1), lambda t, x: x.sum(-1, keepdim=True)),
    "ReduceMean": Step(lambda op, x: op.ReduceMean(x, [0], keepdims=1), lambda t, x: x.mean(0, keepdim=True)),
    "ReduceSumSquare": Step(
        lambda op, x: op.ReduceSumSquare(op.Sin(x), [1], keepdims=1), lambda t, x: (t.sin(x) ** 2).sum(1, keepdim=True)
    ),
    "ReduceL1": Step(lambda op, x: op.ReduceL1(x, [0, 1], keepdims=1), lambda t, x: x.abs().sum((0, 1), keepdim=True)),
    "ReduceL2": Step(
        lambda op, x: op.ReduceL2(onnx_bell(op, x), [-1], keepdims=1),
        lambda t, x: bell(t, x).norm(dim=-1, keepdim=True),
    ),
    "ReduceLogSumExp": Step(
        lambda op, x: op.ReduceLogSumExp(x, [1], keepdims=1), lambda t, x: t.logsumexp(x, 1, keepdim=True)
    ),
    "ReduceMax": Step(lambda op, x: op.ReduceMax(x, [-1], keepdims=1), lambda t, x: x.amax(-1, keepdim=True)),
    "ReduceMin": Step(lambda op, x: op.ReduceMin(x, [0], keepdims=1), lambda t, x: x.amin(0, keepdim=True)),
    "CumSum": Step(lambda op, x: op.CumSum(x, 1, exclusive=1), lambda t, x: x.cumsum(1) - x, fits=lambda s: s[1] > 1),
    # products and convolutions
    "MatMul": Step(lambda op, x, a: op.MatMul(x, a), lambda t, x, a: x @ a, lambda s: [(s[-1], 2)]),
    "Gemm": Step(
        lambda op, x, a, b: op.Gemm(x, a, b, alpha=0.5, beta=2.0, transA=1, transB=1),
        lambda t, x, a, b: 0.5 * x.T @ a.T + 2 * b,
        lambda s: [(3, s[0]), (3,)],
        lambda s: len(s) == 2,
    ),
    "Conv": Step(
        lambda op, x, w, b: op.Conv(x, w, b, strides=[2, 1], pads=[1, 0, 1, 0]),
        lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, stride=(2, 1), padding=(1, 0)),
        lambda s: [(2, s[1], 3, 2), (2,)],
        is_large_image,
    ),
    "ConvTranspose": Step(
        lambda op, x, w: op.ConvTranspose(x, w, strides=[2, 1], pads=[1, 0, 1, 0]),
        lambda t, x, w: t.nn.functional.conv_transpose2d(x, w, stride=(2, 1), padding=(1, 0)),
        lambda s: [(s[1], 2, 3, 2)],
        is_large_image,
    ),
    "BatchNormalization": Step(
        lambda op, x, s, b, m, v: op.BatchNormalization(x, s, b, m, onnx_bell(op, v), epsilon=2**-10),
        torch_batch_norm,
        lambda s: [s[1:2]] * 4,
        is_image,
    ),
    # pooling
    "MaxPool": Step(
        lambda op, x: op.MaxPool(x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
        lambda t, x: t.nn.functional.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
        fits=is_large_image,
    ),
    "AveragePool": Step(
        lambda op, x: op.AveragePool(x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0], count_include_pad=1),
        lambda t, x: t.nn.functional.avg_pool2d(x, (3, 2), (2, 1), (1, 0)),
        fits=is_large_image,
    ),
    "GlobalAveragePool": Step(
        lambda op, x: op.GlobalAveragePool(x), lambda t, x: x.mean((2, 3), keepdim=True), fits=is_image
    ),
    "GlobalMaxPool": Step(lambda op, x: op.GlobalMaxPool(x), lambda t, x: x.amax((2, 3), keepdim=True), fits=is_image),
    "LRN": Step(lambda op, x: op.LRN(x, size=3, alpha=0.5, beta=0.625, bias=2.0), torch_lrn, fits=is_image),
    # moving and picking
    "Reshape": Step(lambda op, x: op.Reshape(x, [2, -1]), lambda t, x: x.reshape(2, -1), fits=lambda s: s[0] % 2 == 0),
    "Flatten": Step(lambda op, x: op.Flatten(x, axis=1), lambda t, x: x.flatten(1)),
    "Squeeze": Step(lambda op, x: op.Squeeze(x, [0]), lambda t, x: x.squeeze(0), fits=lambda s: s[0] == 1 < len(s) - 1),
    "Unsqueeze": Step(lambda op, x: op.Unsqueeze(x, [1]), lambda t, x: x.unsqueeze(1), fits=lambda s: len(s) < 4),
    "Transpose": Step(
        lambda op, x: op.Transpose(x, perm=[1, *range(2, len(op.shape(x))), 0]), lambda t, x: x.movedim(0, -1)
    ),
    "SpaceToDepth": Step(
        lambda op, x: op.SpaceToDepth(x, blocksize=2),
        torch_space_to_depth,
        fits=lambda s: is_image(s) and not s[2] % 2 and not s[3] % 2,
    ),
    "DepthToSpace": Step(
        lambda op, x: op.DepthToSpace(x, blocksize=2),
        torch_depth_to_space,
        fits=lambda s: is_image(s) and s[1] % 4 == 0,
    ),
    "Expand": Step(
        lambda op, x: op.Expand(x, [3, *op.shape(x)[1:]]),
        lambda t, x: x.expand(3, *x.shape[1:]),
        fits=lambda s: s[0] == 1,
    ),
    "Tile": Step(
        lambda op, x: op.Tile(x, [2] + [1] * (len(op.shape(x)) - 2) + [2]),
        lambda t, x: x.tile(2, *[1] * (x.dim() - 2), 2),
        fits=lambda s: math.prod(s) < 60,
    ),
    "Concat": Step(
        lambda op, x, a: op.Concat(a, x, x, axis=1),
        lambda t, x, a: t.cat((a, x, x), 1),
        alike,
        lambda s: math.prod(s) < 60,
    ),
    "Split": Step(
        lambda op, x: op.Split(x, [1, op.shape(x)[-1] - 2, 1], axis=-1, outputs=3)[1],
        lambda t, x: x[..., 1:-1],
        fits=last_is_many,
    ),
    "Slice": Step(lambda op, x: op.Slice(x, [1], [-1], [-1]), lambda t, x: x[..., 1:-1], fits=last_is_many),
    "Slice backwards": Step(
        lambda op, x: op.Slice(x, [-1, 0], [0, 1], [-1, 0], [-1, 1]),
        lambda t, x: x[:1, ..., 1:].flip(-1),
        fits=last_is_many,
    ),
    "Pad": Step(
        lambda op, x: op.Pad(x, [0] * (len(op.shape(x)) - 1) + [1, 1] + [0] * (len(op.shape(x)) - 1), 0.5),
        lambda t, x: t.nn.functional.pad(x, (1, 0) + (0, 0) * (x.dim() - 2) + (0, 1), value=0.5),
    ),
    "Gather": Step(lambda op, x: op.Gather(x, pick(op.shape(x)[1], 4), axis=1), lambda t, x: x[:, pick(x.shape[1], 4)]),
    "GatherElements": Step(
        lambda op, x: op.GatherElements(x, pick(op.shape(x)[-1], *op.shape(x)), axis=-1),
        lambda t, x: x.gather(-1, t.tensor(pick(x.shape[-1], *x.shape))),
    ),
    "ScatterElements": Step(
        lambda op, x: op.ScatterElements(
            x,
            pick(op.shape(x)[-1], *op.shape(x)[:-1], 1),
            op.Neg(op.Slice(x, [0], [1], [-1])),
            axis=len(op.shape(x)) - 1,
        ),
        lambda t, x: x.scatter(-1, t.tensor(pick(x.shape[-1], *x.shape[:-1], 1)), -x[..., :1]),
    ),
    "GatherND": Step(
        lambda op, x: op.GatherND(x, [[0, 0], [0, 1], [0, 0]]),
        lambda t, x: x[[0, 0, 0], [0, 1, 0]],
        fits=lambda s: len(s) > 2 and s[1] > 1,
    ),
}
