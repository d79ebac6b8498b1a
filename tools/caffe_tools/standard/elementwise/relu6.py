"""ReLU6: ReLU that stops at 6 (MobileNet).

Source: the SSD forks' src/caffe/layers/relu6_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.messages import ENGINE
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type("ReLU6", relu6_param={"engine": ENGINE})
def relu6(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """min(max(x, 0), 6); the gradient passes between 0 and 6, without either end."""
    y = op.Clip(x, 0.0, 6.0)
    op.define_gradient([y], [x], lambda dy: [op.Where(op.And(op.Greater(x, 0), op.Less(x, 6)), dy, 0)])
    return y
