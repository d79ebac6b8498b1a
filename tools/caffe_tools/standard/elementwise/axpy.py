"""Axpy: channels scaled and added to others in one step (the residual blocks of SENet).

Source: SENet src/caffe/layers/axpy_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("Axpy", bottoms=3)
def axpy(op: Builder, layer: Layer, scale: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """scale · x + y, with a scale (N × C, or N × C × 1 × 1) for each channel of each image."""
    shape = op.shape(x)
    layer.expect_shape(2, y, shape, "it is added to the second bottom, so both have one shape")
    ones = [1] * (len(shape) - 2)
    wanted = shape[:2] if len(op.shape(scale)) == 2 else (*shape[:2], *ones)
    layer.expect_shape(0, scale, wanted, "it scales the channels of the second bottom")
    return op.Add(op.Mul(op.reshape(scale, [*shape[:2], *ones]), x), y)
