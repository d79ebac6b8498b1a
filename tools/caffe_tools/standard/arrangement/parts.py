"""Blobs put together and taken apart: Concat, Slice, Split, Tile; and Silence, which swallows them.

Source: Caffe src/caffe/layers/concat_layer.cpp, slice_layer.cpp, split_layer.cpp, tile_layer.cpp, silence_layer.cpp.
"""

from __future__ import annotations

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int, Repeated, UInt
from caffe_tools.standard.layer import Layer, Sharing, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("Concat", moves=True, bottoms=(1, None), concat_param={"axis": Int(1), "concat_dim": UInt(1)})
def concat(op: Builder, layer: Layer, *bottoms: ir.Value) -> ir.Value:
    """The bottoms one behind the other along ``axis``."""
    p, first = layer.concat_param, op.shape(bottoms[0])
    if {"axis", "concat_dim"} <= p.given:
        raise layer.error("give axis or the older concat_dim, not both")
    axis = layer.axis(p.concat_dim if "concat_dim" in p.given else p.axis, bottoms[0])
    for name, x in zip(layer.spec.bottoms, bottoms, strict=True):
        shape = op.shape(x)
        if len(shape) != len(first) or any(shape[i] != first[i] for i in range(len(first)) if i != axis):
            raise layer.error(
                f"bottom {name!r} has the shape {dims_text(shape)}, which differs from {dims_text(first)} of bottom"
                f" {layer.spec.bottoms[0]!r} on another axis than {axis}"
            )
    if len(bottoms) == 1:
        layer.sharing = Sharing.ALWAYS
        return bottoms[0]
    return op.Concat(*bottoms, axis=axis)


@layer_type(
    "Slice",
    moves=True,
    tops=(1, None),
    slice_param={"axis": Int(1), "slice_point": Repeated(UInt()), "slice_dim": UInt(1)},
)
def slice_(op: Builder, layer: Layer, x: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    """The bottom cut along ``axis`` at the slice points, or into equal parts."""
    p, tops = layer.slice_param, layer.top_count
    if {"axis", "slice_dim"} <= p.given:
        raise layer.error("give axis or the older slice_dim, not both")
    axis = layer.axis(p.slice_dim if "slice_dim" in p.given else p.axis, x)
    size = op.shape(x)[axis]
    if not isinstance(size, int):
        raise layer.error(f"axis {axis}, which it slices, must have a fixed size")
    if p.slice_point:
        points = [0, *p.slice_point, size]
        if len(points) != tops + 1 or np.any(np.diff(points) < 1):
            raise layer.error(
                f"slice points {list(p.slice_point)} must be {tops - 1} rising numbers between 0 and {size}"
            )
        lengths = np.diff(points)
    else:
        if size % tops:
            raise layer.error(f"axis {axis} has {size} elements, which {tops} tops cannot share equally")
        lengths = np.full(tops, size // tops)
    if tops == 1:
        layer.sharing = Sharing.ALWAYS
        return x
    return op.Split(x, lengths, axis=axis, outputs=tops)


@layer_type("Split", moves=True, tops=(1, None))
def split(op: Builder, layer: Layer, x: ir.Value) -> tuple[ir.Value, ...]:
    """Every top is the bottom; the diffs of the tops add up."""
    layer.sharing = Sharing.DATA
    return (x,) * layer.top_count


@layer_type("Tile", moves=True, tile_param={"axis": Int(1), "tiles": Int()})
def tile(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """``tiles`` copies of the bottom side by side along ``axis``."""
    p, shape = layer.tile_param, list(op.shape(x))
    axis = layer.axis(p.axis, x)
    if p.tiles is None or p.tiles < 1:
        raise layer.error("tiles is missing or below 1: give the number of copies")
    repeats = [p.tiles if i == axis else 1 for i in range(len(shape))]
    y = op.Tile(x, repeats)
    shape[axis] = shape[axis] * p.tiles if isinstance(shape[axis], int) else f"{shape[axis]}*{p.tiles}"
    y.shape = ir.Shape(shape)
    return y


@layer_type("Silence", bottoms=(1, None), tops=0)
def silence(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Nothing: it keeps its bottoms from being outputs of the net."""
    return ()
