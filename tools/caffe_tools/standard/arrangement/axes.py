"""The axes of a blob joined, parted or put in another order: Flatten, Reshape, Permute.

Source: Caffe src/caffe/layers/flatten_layer.cpp, reshape_layer.cpp; Caffe-SSD src/caffe/layers/permute_layer.cpp.
"""

from __future__ import annotations

import math

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int, Repeated, Submessage, UInt
from caffe_tools.prototxt.messages import SHAPE
from caffe_tools.standard.layer import Layer, Sharing, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("Flatten", moves=True, flatten_param={"axis": Int(1), "end_axis": Int(-1)})
def flatten(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The axes from ``axis`` to ``end_axis`` as one."""
    p, shape = layer.flatten_param, op.shape(x)
    first, last = layer.axis(p.axis, x), layer.axis(p.end_axis, x, "end_axis")
    if last < first - 1:
        raise layer.error(f"end_axis {p.end_axis} stands before axis {p.axis}")
    # of no axes at all (end_axis next before axis) Caffe makes one of size 1
    merged = shape[first : last + 1]
    size = math.prod(merged) if all(isinstance(dim, int) for dim in merged) else -1
    layer.sharing = Sharing.IN_PASSES
    return op.reshape(x, [*shape[:first], size, *shape[last + 1 :]])


@layer_type("Reshape", moves=True, reshape_param={"shape": Submessage(SHAPE), "axis": Int(0), "num_axes": Int(-1)})
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
    layer.sharing = Sharing.ALWAYS
    return op.reshape(x, dims)


@layer_type("Permute", moves=True, permute_param={"order": Repeated(UInt())})
def permute(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The bottom with its axes in the order ``order``; axes that it leaves out follow in their own order."""
    order, rank = list(layer.permute_param.order), len(op.shape(x))
    if len(set(order)) != len(order) or any(axis >= rank for axis in order):
        raise layer.error(f"order {order} must name axes from 0 to {rank - 1}, each at most once", "permute_param")
    order += [axis for axis in range(rank) if axis not in order]
    if order == list(range(rank)):
        layer.sharing = Sharing.IN_PASSES
        return x
    return op.Transpose(x, perm=order)
