"""Gradients of the pooling ops, and of LRN, which pools across channels."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.rules import NodeGradient, rule
from caffe_tools.gradient.shapes import scatter_by_flat_index


@rule("MaxPool")
def max_pool(n: NodeGradient, index: int) -> ir.Value:
    """dy goes to the element that won its window; the node's second output tells which."""
    op, node = n.op, n.node
    if len(node.outputs) < 2:
        node.resize_outputs(2)
        winners = node.outputs[1]
        winners.name = op.unique_name(f"{node.name}.winners")
        winners.dtype, winners.shape = ir.DataType.INT64, ir.Shape(op.shape(n.y[0]))
    if n.attribute("storage_order", 0):
        raise n.error("storage_order 1 is not covered")
    return scatter_by_flat_index(n, node.outputs[1], n.dy)


@rule("AveragePool")
def average_pool(n: NodeGradient, index: int) -> ir.Value:
    """dy / k spread over its window: a transposed convolution with ones, channel by channel."""
    op, shape = n.op, n.shape(0)
    spatial = len(shape) - 2
    kernel = n.attribute("kernel_shape")
    strides = list(n.attribute("strides") or [1] * spatial)
    pads = list(n.attribute("pads") or [0] * (2 * spatial))
    size, output = shape[2:], op.shape(n.y[0])[2:]
    padded = any(pads) and not n.attribute("count_include_pad", 0)
    if padded or n.attribute("ceil_mode", 0) or n.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise n.error("only explicit pads that count, and no ceil_mode, are covered")
    if any(d != 1 for d in n.attribute("dilations") or [1]):
        raise n.error("dilations are not covered")
    if not all(isinstance(dim, int) for dim in (*size, *output)):
        raise n.error("the image size must be known")
    leftover = [
        size[a] + pads[a] + pads[a + spatial] - ((output[a] - 1) * strides[a] + kernel[a]) for a in range(spatial)
    ]
    ones = op.constant(np.full((shape[1], 1, *kernel), 1.0 / math.prod(kernel), n.dy.dtype.numpy()))
    return op.ConvTranspose(
        n.dy, ones, strides=strides, pads=pads, group=shape[1], output_padding=leftover if any(leftover) else None
    )


@rule("GlobalAveragePool")
def global_average_pool(n: NodeGradient, index: int) -> ir.Value:
    op, axes = n.op, list(range(2, len(n.shape(0))))
    return op.Expand(op.Div(n.dy, op.count(n.x[0], axes)), op.dims(n.x[0], range(len(n.shape(0)))))


@rule("GlobalMaxPool")
def global_max_pool(n: NodeGradient, index: int) -> ir.Value:
    """dy to the first of the largest elements."""
    op, rank = n.op, len(n.shape(0))
    batch, channels, *_ = n.shape(0)
    flat = op.reshape(n.x[0], [batch, channels, -1])
    winner = op.ArgMax(flat, axis=2, keepdims=1)
    diff = op.ScatterElements(op.zeros(flat), winner, op.reshape(n.dy, [batch, channels, 1]), axis=2)
    return op.Reshape(diff, op.dims(n.x[0], range(rank)))


@rule("LRN")
def local_response_normalization(n: NodeGradient, index: int) -> ir.Value:
    """With s = bias + α · mean(x²) over the window: dy · s^−β − 2·α·β · x · mean(dy · y / s)."""
    op, x, y = n.op, n.x[0], n.y[0]
    alpha, beta, bias = n.attribute("alpha", 1e-4), n.attribute("beta", 0.75), n.attribute("bias", 1.0)
    scale = op.Add(op.Mul(_mean_of_channels(n, op.Mul(x, x)), alpha), bias)
    direct = op.Mul(n.dy, op.Pow(scale, -beta))
    through_window = _mean_of_channels(n, op.Div(op.Mul(n.dy, y), scale))
    return op.Sub(direct, op.Mul(op.Mul(x, through_window), 2 * alpha * beta))


def _mean_of_channels(n: NodeGradient, value: ir.Value) -> ir.Value:
    """The sum over LRN's window of channels, divided by the window's size; beyond the edges are zeros."""
    op, size, (batch, channels, *_) = n.op, n.attribute("size"), n.shape(0)
    # ONNX lets the window of an even size reach one channel further behind than before
    before, behind = (size - 1) // 2, size // 2
    rows = op.reshape(value, [batch, 1, channels, -1])
    mean = op.AveragePool(rows, kernel_shape=[size, 1], pads=[before, 0, behind, 0], count_include_pad=1)
    result = op.Reshape(mean, op.dims(n.x[0], range(len(n.shape(0)))))
    result.shape = ir.Shape(n.shape(0))
    return result
