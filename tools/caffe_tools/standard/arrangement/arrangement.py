"""Layers that only move elements: Concat, Slice, Split, Flatten, Reshape; and Silence, which swallows them.

Source: Caffe src/caffe/layers/concat_layer.cpp, slice_layer.cpp, split_layer.cpp, flatten_layer.cpp,
reshape_layer.cpp, silence_layer.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int, Repeated, Submessage, UInt
from caffe_tools.prototxt.messages import SHAPE
from caffe_tools.standard.layer import Layer, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("Concat", bottoms=(1, None), concat_param={"axis": Int(1), "concat_dim": UInt(1)})
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
    return bottoms[0] if len(bottoms) == 1 else op.Concat(*bottoms, axis=axis)


@layer_type(
    "Slice", tops=(1, None), slice_param={"axis": Int(1), "slice_point": Repeated(UInt()), "slice_dim": UInt(1)}
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
    return x if tops == 1 else op.Split(x, lengths, axis=axis, outputs=tops)


@layer_type("Split", tops=(1, None))
def split(op: Builder, layer: Layer, x: ir.Value) -> tuple[ir.Value, ...]:
    """Every top is the bottom; the diffs of the tops add up."""
    return (x,) * layer.top_count


@layer_type("Flatten", flatten_param={"axis": Int(1), "end_axis": Int(-1)})
def flatten(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The axes from ``axis`` to ``end_axis`` as one."""
    p, shape = layer.flatten_param, op.shape(x)
    first, last = layer.axis(p.axis, x), layer.axis(p.end_axis, x, "end_axis")
    if last < first - 1:
        raise layer.error(f"end_axis {p.end_axis} stands before axis {p.axis}")
    # of no axes at all (end_axis next before axis) Caffe makes one of size 1
    merged = shape[first : last + 1]
    size = math.prod(merged) if all(isinstance(dim, int) for dim in merged) else -1
    return op.reshape(x, [*shape[:first], size, *shape[last + 1 :]])


@layer_type("Reshape", reshape_param={"shape": Submessage(SHAPE), "axis": Int(0), "num_axes": Int(-1)})
def reshape(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """``shape`` replaces ``num_axes`` axes from ``axis`` on; in it 0 copies a dim and -1 takes what is left."""
    p, source = layer.reshape_param, op.shape(x)
    rank = len(source)
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    if not 0 <= start <= rank:
        raise layer.error(f"axis {p.axis} is out of range for a blob of {rank} axes")
    end = rank if p.num_axes == -1 else start + p.num_axes
    if p.num_axes < -1 or end > rank:
        raise layer.error(f"num_axes {p.num_axes} from axis {start} on is out of range for a blob of {rank} axes")
    middle = []
    for position, dim in enumerate(p.shape.dim):
        if dim == 0 and start + position >= rank:
            raise layer.error(f"dim {position} of its shape is 0 (copy), but the bottom has no axis {start + position}")
        middle.append(source[start + position] if dim == 0 else dim)
    if any(isinstance(dim, int) and dim < -1 for dim in middle) or middle.count(-1) > 1:
        raise layer.error(f"its shape {list(p.shape.dim)} may hold one -1 and no other negative dim")
    dims = [*source[:start], *middle, *source[end:]]
    if -1 not in dims and all(isinstance(d, int) for d in (*dims, *source)) and math.prod(dims) != math.prod(source):
        raise layer.error(f"cannot reshape {dims_text(source)} to {dims_text(dims)}: the counts do not match")
    return op.reshape(x, dims)


@layer_type("Silence", bottoms=(1, None), tops=0)
def silence(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Nothing: it keeps its bottoms from being outputs of the net."""
    return ()
