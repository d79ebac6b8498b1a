"""Tile: a blob repeated along one axis.

Source: Caffe src/caffe/layers/tile_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("Tile", tile_param={"axis": Int(1), "tiles": Int()})
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
