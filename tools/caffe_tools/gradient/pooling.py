"""Gradients of the pooling ops, and of LRN, which pools across channels."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.linear import Window
from caffe_tools.gradient.rules import NodeGradient, rule
from caffe_tools.gradient.shapes import scatter_by_flat_index
from caffe_tools.graph.dims import all_known, dtype_of


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
    channels, *size = n.shape(0)[1:]
    padded = any(n.attribute("pads", [])) and not n.attribute("count_include_pad", 0)
    if padded or n.attribute("ceil_mode", 0):
        raise n.error("only pads that count, and no ceil_mode, are covered")
    if any(d != 1 for d in n.attribute("dilations", [])):
        raise n.error("dilations are not covered")
    if not all_known([channels, *size]):
        raise n.error("the image size must be known")
    window = Window(n)
    window.group = channels
    ones = np.full((channels, 1, *window.kernel), 1.0 / math.prod(window.kernel), dtype_of(n.dy))
    return n.op.ConvTranspose(n.dy, n.op.constant(ones), output_padding=window.leftover(n), **window.attributes())


@rule("GlobalAveragePool")
def global_average_pool(n: NodeGradient, index: int) -> ir.Value:
    op, axes = n.op, list(range(2, len(n.shape(0))))
    return op.Expand(op.Div(n.dy, op.count(n.x[0], axes)), op.dims(n.x[0]))


@rule("GlobalMaxPool")
def global_max_pool(n: NodeGradient, index: int) -> ir.Value:
    """dy to the first of the largest elements."""
    op = n.op
    batch, channels, *_ = n.shape(0)
    flat = op.reshape(n.x[0], [batch, channels, -1])
    winner = op.ArgMax(flat, axis=2, keepdims=1)
    diff = op.ScatterElements(op.zeros(flat), winner, op.reshape(n.dy, [batch, channels, 1]), axis=2)
    return n.in_shape_of_input(diff)


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
    return n.in_shape_of_input(mean)
