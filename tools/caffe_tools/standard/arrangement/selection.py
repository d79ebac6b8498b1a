"""Layers that pick: ArgMax the largest elements, BatchReindex and Filter items of the batch.

Source: Caffe src/caffe/layers/argmax_layer.cpp, batch_reindex_layer.cpp, filter_layer.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Int, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import CLASS_INDEX, layer_type


@layer_type("ArgMax", argmax_param={"out_max_val": Bool(False), "top_k": UInt(1), "axis": Int()})
def argmax(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The places of the ``top_k`` largest elements, largest first, of equal ones the last first; no gradient passes.

    Without ``axis`` they are sought in each item of the batch, flattened: the top is N × 1 × top_k (and × 1 for every
    further axis of the bottom), or with ``out_max_val`` N × 2 × top_k, the places and then the elements. With ``axis``
    they are sought along it, and ``out_max_val`` gives the elements in place of the places.
    """
    p = layer.argmax_param
    if p.axis is None:
        shape = layer.expect_axes(0, x, 1, math.inf)
        items = op.reshape(x, [shape[0], -1]) if len(shape) > 1 else op.Unsqueeze(x, [1])
        places, elements = _largest(op, layer, items, 1)
        tail = [p.top_k] + [1] * (len(shape) - 3)
        if not p.out_max_val:
            return op.reshape(places, [shape[0], 1, *tail])
        return op.reshape(op.Concat(places, elements, axis=1), [shape[0], 2, *tail])
    places, elements = _largest(op, layer, x, layer.axis(p.axis, x))
    return elements if p.out_max_val else places


def _largest(op: Builder, layer: Layer, x: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
    """The places (as floats) and the values of the ``top_k`` largest elements along ``axis``."""
    p, size = layer.argmax_param, op.shape(x)[axis]
    if p.top_k < 1 or (isinstance(size, int) and p.top_k > size):
        raise layer.error(f"top_k {p.top_k} must be 1 to {size}, the number of elements that it chooses from")
    if p.top_k == 1:
        place = op.ArgMax(x, axis=axis, keepdims=1, select_last_index=1)
        element = op.ReduceMax(x, [axis], keepdims=1) if p.out_max_val else x
    else:
        # TopK puts the first of equal elements first, so it sees them in reverse
        backwards = op.Slice(x, [-1], [np.iinfo(np.int64).min], [axis], [-1])
        element, from_behind = op.TopK(backwards, [p.top_k], axis=axis, largest=1, sorted=1, outputs=2)
        place = op.Sub(op.Sub(op.dims(x, [axis]), 1), from_behind)
    return op.cast(place, x), op.without_gradient(element, x)


@layer_type("BatchReindex", bottoms=2, labels={1: CLASS_INDEX})
def batch_reindex(op: Builder, layer: Layer, x: ir.Value, index: ir.Value) -> ir.Value:
    """The items of the first bottom in the order that the second one, a list of their indices, gives."""
    if len(op.shape(index)) != 1:
        raise layer.misfit(1, index, ": it must be a list of indices")
    layer.expect_labels(1, layer.expect_axes(0, x, 1, math.inf)[0])
    return op.Gather(x, op.cast(index, "int64"), axis=0)


@layer_type("Filter", bottoms=(2, None), tops=(1, None))
def filter_(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Of every bottom but the last the items for which the last bottom, the selector, is not 0.

    How many there are is known when it runs; the selector gets no gradient.
    """
    *blobs, selector = bottoms
    if layer.top_count != len(blobs):
        raise layer.error(f"it has {layer.top_count} tops and {len(bottoms)} bottoms: give a top for each but the last")
    items = op.shape(selector)[:1]
    ones = [1] * (len(op.shape(selector)) - 1)
    layer.expect_shape(len(blobs), selector, (*items, *ones), "the selector has one element for each item")
    for index, x in enumerate(blobs):
        wanted = (*items, *op.shape(x)[1:])
        layer.expect_shape(index, x, wanted, "it has one item for each element of the selector")
    flat = op.reshape(selector, [-1]) if len(op.shape(selector)) != 1 else selector
    kept = op.Squeeze(op.NonZero(flat), [0])
    return tuple(op.Gather(x, kept, axis=0) for x in blobs)
