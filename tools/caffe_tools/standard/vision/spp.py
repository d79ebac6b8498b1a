"""SPP: spatial pyramid pooling.

Source: Caffe src/caffe/layers/spp_layer.cpp; He et al., Spatial Pyramid Pooling in Deep Convolutional Networks.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Enum, UInt
from caffe_tools.prototxt.messages import ENGINE
from caffe_tools.standard.layer import Layer, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("SPP", spp_param={"pyramid_height": UInt(), "pool": Enum("MAX", "AVE", "STOCHASTIC"), "engine": ENGINE})
def spp(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The image pooled over 1×1, 2×2, 4×4, … windows (``pyramid_height`` grids), all flattened and put side by side.

    A single grid is not flattened: the top is then N × C × 1 × 1.
    """
    p, shape = layer.spp_param, layer.expect_axes(0, x, 4)
    if not p.pyramid_height:
        raise layer.error("pyramid_height is missing or 0: give the number of grids")
    if p.pool == "STOCHASTIC":
        raise layer.error("pool STOCHASTIC is not covered: it runs in Caffe's GPU mode alone")
    whole = op.GlobalMaxPool(x) if p.pool == "MAX" else op.GlobalAveragePool(x)
    if p.pyramid_height == 1:
        return whole
    grids = [whole] + [_grid(op, layer, x, 2**level) for level in range(1, p.pyramid_height)]
    return op.Concat(*(op.reshape(grid, [shape[0], -1]) for grid in grids), axis=1)


def _grid(op: Builder, layer: Layer, x: ir.Value, bins: int) -> ir.Value:
    """``x`` pooled over bins × bins windows that just cover the image and a pad around it."""
    kernel, begins, ends = [], [], []
    for axis, size in enumerate(op.shape(x)[2:], start=2):
        if not isinstance(size, int):
            raise layer.error(f"the image size must be fixed, not {dims_text(op.shape(x)[2:])}")
        length = -(-size // bins)
        missing = length * bins - size
        pad = (missing + 1) // 2
        if pad >= length:
            raise layer.error(
                f"axis {axis} of bottom {layer.spec.bottoms[0]!r} has {size} elements, too few for {bins} windows: give"
                " a smaller pyramid_height"
            )
        kernel.append(length)
        begins.append(pad)
        ends.append(missing - pad)
    window = {"kernel_shape": kernel, "strides": kernel, "pads": [*begins, *ends]}
    if layer.spp_param.pool == "MAX":
        return op.MaxPool(x, **window)
    return op.AveragePool(x, **window, count_include_pad=1)
