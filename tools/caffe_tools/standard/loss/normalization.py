"""By what Caffe's losses divide: the ``loss_param`` message.

Source: Caffe include/caffe/proto/caffe.proto (LossParameter), ``GetNormalizer`` in the layers that use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.standard.layer import Layer


def counted(op: Builder, layer: Layer, label: ir.Value) -> ir.Value | None:
    """Where the int64 ``label`` is not ``ignore_label``; None where there is none."""
    ignored = layer.loss_param.ignore_label
    return None if ignored is None else op.Not(op.Equal(label, ignored))


def divisor(
    op: Builder,
    layer: Layer,
    x: ir.Value,
    default: str,
    batch_axes: Sequence[int],
    per_position: ir.Value,
    mask: ir.Value | None,
) -> ir.Value:
    """max(1, n), where n counts what ``normalization`` says.

    ``batch_axes`` are the axes of ``x`` that make up the batch size, ``per_position`` has one element for each
    position, and ``mask`` (None: all) tells which positions count.
    """
    p = layer.loss_param
    mode = p.normalization
    if mode is None:
        mode = default if p.normalize is None else "VALID" if p.normalize else "BATCH_SIZE"
    if mode == "NONE":
        return op.constant(1.0, x.dtype.numpy())
    if mode == "VALID" and mask is not None:
        return op.Max(op.ReduceSum(op.cast(mask, x), keepdims=0), 1)
    count = op.count(x, batch_axes) if mode == "BATCH_SIZE" else op.cast(op.count(per_position), x)
    return op.Max(count, 1)
