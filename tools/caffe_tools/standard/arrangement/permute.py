"""Permute: the axes in another order.

Source: Caffe-SSD src/caffe/layers/permute_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Repeated, UInt
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("Permute", permute_param={"order": Repeated(UInt())})
def permute(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The bottom with its axes in the order ``order``; axes that it leaves out follow in their own order."""
    order, rank = list(layer.permute_param.order), len(op.shape(x))
    if len(set(order)) != len(order) or any(axis >= rank for axis in order):
        raise layer.error(f"order {order} must name axes from 0 to {rank - 1}, each at most once", "permute_param")
    order += [axis for axis in range(rank) if axis not in order]
    return x if order == list(range(rank)) else op.Transpose(x, perm=order)
