"""Gradients of products and convolutions: MatMul, Gemm, Conv, ConvTranspose, BatchNormalization (inference form)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.rules import NodeGradient, rule, sum_to_shape
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import all_known


def _transpose_matrix(op: Builder, value: ir.Value) -> ir.Value:
    """``value`` with its last two axes exchanged."""
    rank = len(op.shape(value))
    return op.Transpose(value, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("MatMul")
def matmul(n: NodeGradient, index: int) -> ir.Value:
    """dx0 = dy · x1ᵀ, dx1 = x0ᵀ · dy; a vector stands for a row (x0) or a column (x1)."""
    op, (a, b), dy = n.op, n.x, n.dy
    a_vector, b_vector = len(n.shape(0)) == 1, len(n.shape(1)) == 1
    if b_vector:
        b, dy = op.Unsqueeze(b, [-1]), op.Unsqueeze(dy, [-1])
    if a_vector:
        a, dy = op.Unsqueeze(a, [0]), op.Unsqueeze(dy, [-2])
    if index == 0:
        diff = sum_to_shape(op, op.MatMul(dy, _transpose_matrix(op, b)), a)
        return op.Squeeze(diff, [0]) if a_vector else diff
    diff = sum_to_shape(op, op.MatMul(_transpose_matrix(op, a), dy), b)
    return op.Squeeze(diff, [-1]) if b_vector else diff


@rule("Gemm")
def gemm(n: NodeGradient, index: int) -> ir.Value:
    """y = α·A′·B′ + β·C, where ′ transposes as transA and transB say."""
    op, dy = n.op, n.dy
    alpha, beta = n.attribute("alpha", 1.0), n.attribute("beta", 1.0)
    transposed_a, transposed_b = n.attribute("transA", 0), n.attribute("transB", 0)
    if index == 2:
        diff = sum_to_shape(op, dy, n.x[2])
        return diff if beta == 1 else op.Mul(diff, beta)
    if index == 0 and transposed_a:
        return op.Gemm(n.x[1], dy, alpha=alpha, transA=transposed_b, transB=1)
    if index == 0:
        return op.Gemm(dy, n.x[1], alpha=alpha, transB=1 - transposed_b)
    if transposed_b:
        return op.Gemm(dy, n.x[0], alpha=alpha, transA=1, transB=transposed_a)
    return op.Gemm(n.x[0], dy, alpha=alpha, transA=1 - transposed_a)


class Window:
    """Strides, dilations, pads and groups of a convolution, with ONNX's defaults."""

    def __init__(self, n: NodeGradient) -> None:
        spatial = len(n.shape(0)) - 2
        self.kernel = n.attribute("kernel_shape") or list(n.shape(1)[2:])
        self.strides = list(n.attribute("strides") or [1] * spatial)
        self.dilations = list(n.attribute("dilations") or [1] * spatial)
        self.group = n.attribute("group", 1)
        auto_pad = n.attribute("auto_pad", "NOTSET")
        if auto_pad not in ("NOTSET", "VALID"):
            raise n.error(f"auto_pad {auto_pad} is not covered, give explicit pads")
        self.pads = list(n.attribute("pads") or [0] * (2 * spatial)) if auto_pad == "NOTSET" else [0] * (2 * spatial)
        self.spatial = spatial

    def attributes(self) -> dict[str, Any]:
        """Those of a convolution with the same windows."""
        names = ("kernel_shape", "strides", "dilations", "pads", "group")
        return dict(zip(names, (self.kernel, self.strides, self.dilations, self.pads, self.group), strict=True))

    def leftover(self, n: NodeGradient) -> list[int] | None:
        """How many elements at the end of each axis no window reaches, because the strides do not divide the axis."""
        leftover = []
        for axis in range(self.spatial):
            wide, narrow = n.shape(0)[axis + 2], n.op.shape(n.y[0])[axis + 2]
            if isinstance(wide, int) and isinstance(narrow, int):
                padded = wide + self.pads[axis] + self.pads[axis + self.spatial]
                reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
                leftover.append(padded - ((narrow - 1) * self.strides[axis] + reach))
            elif self.strides[axis] != 1:
                raise n.error("strides other than 1 need a known image size")
            else:
                leftover.append(0)
        return leftover if any(leftover) else None


@rule("Conv")
def convolution(n: NodeGradient, index: int) -> ir.Value:
    """dx is the transposed convolution of dy, dw the correlation of x with dy, db the sum of dy."""
    op, window = n.op, Window(n)
    if index == 2:
        return op.ReduceSum(n.dy, [0, *range(2, window.spatial + 2)], keepdims=0)
    if index == 1:
        return _by_weight(n, window, wide=n.x[0], narrow=n.dy)
    return op.ConvTranspose(n.dy, n.x[1], output_padding=window.leftover(n), **window.attributes())


def _by_weight(n: NodeGradient, window: Window, wide: ir.Value, narrow: ir.Value) -> ir.Value:
    """Σ over the batch and the positions of ``narrow`` of narrow · the window of ``wide`` beneath it."""
    (batch, *image), positions = n.op.shape(wide), n.op.shape(narrow)[2:]
    if window.group == 1 and all_known(image) and all_known(positions) and image[0] >= FEWEST_CHANNELS:
        images = batch if isinstance(batch, int) else LIKELY_BATCH
        if images * math.prod(positions) * math.prod(window.kernel) * image[0] <= MOST_GATHERED:
            return _by_weight_as_product(n.op, window, wide, narrow)
    return _by_weight_as_convolution(n, window, wide, narrow)


FEWEST_CHANNELS = 8
"""With fewer, gathering costs more than the product saves (measured in ONNX Runtime)."""
MOST_GATHERED = 2**26
"""The most elements that the windows of all images may have side by side: 256 MiB."""
LIKELY_BATCH = 32
"""For a batch that only the running graph knows."""


def _by_weight_as_product(op: Builder, window: Window, wide: ir.Value, narrow: ir.Value) -> ir.Value:
    """One product of matrices: ``narrow``, a row for each channel, with the windows, a row for each position.

    With the channels at the end, each element of each window is gathered with all its channels at once. In ONNX Runtime
    this is 3 to 10 times as fast as a convolution with a kernel of the image's size.
    """
    spatial, channels, outputs = window.spatial, op.shape(wide)[1], op.shape(narrow)[1]
    images = op.Transpose(wide, perm=[0, *range(2, spatial + 2), 1])
    if any(window.pads):
        images = op.Pad(images, [0, *window.pads[:spatial], 0, 0, *window.pads[spatial:], 0])
    size, positions, kernel = op.shape(images)[1:-1], op.shape(narrow)[2:], math.prod(window.kernel)
    assert all_known(size) and all_known(positions)
    places = _places_in_windows(op, window, size, positions)
    windows = op.Gather(op.reshape(images, [op.shape(wide)[0], math.prod(size), channels]), places, axis=1)
    rows = op.reshape(op.Transpose(narrow, perm=[1, 0, *range(2, spatial + 2)]), [outputs, -1])
    product = op.Gemm(rows, op.reshape(windows, [-1, kernel * channels]))
    by_channel = op.Transpose(op.reshape(product, [outputs, kernel, channels]), perm=[0, 2, 1])
    return op.reshape(by_channel, [outputs, channels, *window.kernel])


def _places_in_windows(op: Builder, window: Window, size: Sequence[int], positions: Sequence[int]) -> ir.Value:
    """Where each element of each window lies in a flattened image of ``size``: positions × kernel.

    It is the sum of a part for each axis, so that no table of that size is stored in the model.
    """
    parts = []
    for axis in range(window.spatial):
        first = np.arange(positions[axis]) * window.strides[axis]
        along = np.add.outer(first, np.arange(window.kernel[axis]) * window.dilations[axis])
        dims = [1] * (2 * window.spatial)
        dims[axis], dims[axis + window.spatial] = along.shape
        parts.append(op.constant((along * math.prod(size[axis + 1 :])).reshape(dims), np.int64))
    return reduce(op.Add, parts)


def _by_weight_as_convolution(n: NodeGradient, window: Window, wide: ir.Value, narrow: ir.Value) -> ir.Value:
    """A convolution whose channels are the images of the batch, whose strides are the dilations and the other way
    round; with groups, the groups stay groups.
    """
    op, group, spatial = n.op, window.group, window.spatial
    batch, channels, *size = op.shape(wide)
    tail = list(range(2, spatial + 2))
    if group == 1:
        images = op.Transpose(wide, perm=[1, 0, *tail])
    else:
        grouped = op.reshape(wide, [batch, group, channels // group, *size])
        grouped = op.Transpose(grouped, perm=[2, 1, 0, *(axis + 1 for axis in tail)])
        images = op.reshape(grouped, [channels // group, -1, *size])
    result = op.Conv(
        images,
        op.Transpose(narrow, perm=[1, 0, *tail]),
        strides=window.dilations,
        dilations=window.strides,
        pads=window.pads,
        group=group,
    )
    if list(op.shape(result)[2:]) != list(window.kernel):
        result = op.Slice(result, [0] * spatial, window.kernel, tail)
    return op.Transpose(result, perm=[1, 0, *tail])


@rule("ConvTranspose")
def transposed_convolution(n: NodeGradient, index: int) -> ir.Value:
    """dx is the convolution of dy; the weight sees dy through the windows and x at their positions."""
    op, window = n.op, Window(n)
    if n.attribute("output_shape") is not None:
        raise n.error("output_shape is not covered, give explicit pads")
    if index == 2:
        return op.ReduceSum(n.dy, [0, *range(2, window.spatial + 2)], keepdims=0)
    if index == 1:
        return _by_weight(n, window, wide=n.dy, narrow=n.x[0])
    return op.Conv(n.dy, n.x[1], **window.attributes())


@rule("BatchNormalization")
def batch_normalization(n: NodeGradient, index: int) -> ir.Value:
    """y = scale · (x − mean) / √(var + ε) + bias, with statistics that are given, not taken from the batch."""
    if n.attribute("training_mode", 0):
        raise n.error("training_mode is not covered")
    op, (x, scale, _, mean, variance) = n.op, n.x
    rank = len(n.shape(0))
    others = [axis for axis in range(rank) if axis != 1]
    per_channel = [1, -1] + [1] * (rank - 2)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, n.attribute("epsilon", 1e-5))))
    if index == 0:
        return op.Mul(n.dy, op.Reshape(op.Mul(scale, inverse), per_channel))
    total = op.ReduceSum(n.dy, others, keepdims=0)
    if index == 2:
        return total
    if index == 3:
        return op.Neg(op.Mul(total, op.Mul(scale, inverse)))
    centered = op.Sub(x, op.Reshape(mean, per_channel))
    product = op.ReduceSum(op.Mul(n.dy, centered), others, keepdims=0)
    if index == 1:
        return op.Mul(product, inverse)
    cubed = op.Mul(inverse, op.Mul(inverse, inverse))
    return op.Mul(op.Mul(product, -0.5), op.Mul(scale, cubed))
