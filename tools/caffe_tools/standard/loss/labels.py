"""What the losses that learn from labels share: one whole number for each position of the scores, or for each row.

Source: Caffe src/caffe/layers/loss_layer.cpp and the layers that use these.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim, same_count
from caffe_tools.standard.layer import Layer, dims_text


def check_batch(op: Builder, layer: Layer, x: ir.Value, label: ir.Value, index: int = 1) -> None:
    """NetError where bottom ``index`` lacks the first dim of the first bottom, as Caffe's losses demand."""
    shape, label_shape = op.shape(x), op.shape(label)
    if not shape or not label_shape or not same_count(shape[:1], label_shape[:1]):
        raise _misfit(layer, index, label_shape, f"the first dim of the scores' {dims_text(shape)}")


def position_labels(
    op: Builder, layer: Layer, scores: ir.Value, label: ir.Value, axis: int, ignored: int | None
) -> ir.Value:
    """The labels as int64 (cut toward zero, as Caffe's cast does), in the scores' shape with a dim of 1 on ``axis``."""
    shape, label_shape = op.shape(scores), op.shape(label)
    positions = [*shape[:axis], *shape[axis + 1 :]]
    if not same_count(label_shape, positions):
        what = f"one label for each of the {dims_text(positions)} positions of the scores' {dims_text(shape)}"
        raise _misfit(layer, 1, label_shape, what)
    layer.expect_labels(1, shape[axis], ignored)
    return op.cast(op.reshape(label, [*shape[:axis], 1, *shape[axis + 1 :]]), "int64")


def rows(op: Builder, layer: Layer, index: int, x: ir.Value) -> ir.Value:
    """Bottom ``index`` as N rows. Who uses it has Caffe's old N/C/H/W view of blobs, hence at most 4 axes."""
    return op.reshape(x, [layer.expect_axes(index, x, 1, 4)[0], -1])


def row_labels(op: Builder, layer: Layer, index: int, rows_: ir.Value, label: ir.Value) -> ir.Value:
    """Bottom ``index``, one label for each row, as int64 of shape N×1 (cut toward zero)."""
    count = op.shape(rows_)[0]
    if not same_count(op.shape(label), [count]):
        raise _misfit(layer, index, op.shape(label), f"one label for each of the {count} rows of the first bottom")
    return op.cast(op.reshape(label, [count, 1]), "int64")


def _misfit(layer: Layer, index: int, shape: Sequence[Dim], wanted: str) -> Exception:
    return layer.error(f"bottom {layer.spec.bottoms[index]!r} of shape {dims_text(shape)} must have {wanted}")
