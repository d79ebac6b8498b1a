"""PSROIPooling: each bin of a region averaged over a channel of its own (R-FCN's position-sensitive pooling).

Source: caffe-rfcn src/caffe/layers/psroi_pooling_layer.cu.
"""

from __future__ import annotations

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Float, Int
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type
from caffe_tools.standard.vision.roi_pooling import check_rois, round_away


@layer_type(
    "PSROIPooling",
    bottoms=2,
    regions=1,
    psroi_pooling_param={"spatial_scale": Float(), "output_dim": Int(), "group_size": Int()},
)
def psroi_pooling(op: Builder, layer: Layer, x: ir.Value, rois: ir.Value) -> ir.Value:
    """R × output_dim × G × G: bin (i, j) of output d is the mean of channel (d·G + i)·G + j over the bin's pixels.

    A region (image, x1, y1, x2, y2) reaches from its first corner, rounded and scaled, to its last, rounded, plus 1 and
    scaled, but over 0.1 at least; G = ``group_size`` bins a side. A bin outside the map gives 0.
    """
    p = layer.psroi_pooling_param
    rois_ = check_rois(op, layer, x, rois, p.spatial_scale)
    if not p.spatial_scale or p.spatial_scale < 0 or min(p.output_dim or 0, p.group_size or 0) < 1:
        raise layer.error("spatial_scale, output_dim and group_size must be given, and be positive")
    group, outputs, channels = p.group_size, p.output_dim, op.shape(x)[1]
    if channels != outputs * group * group:
        raise layer.error(
            f"bottom {layer.spec.bottoms[0]!r} has {channels} channels, but output_dim {outputs} · group_size² needs"
            f" {outputs * group * group}"
        )
    image, x1, y1, x2, y2 = op.Split(rois_, [1, 1, 1, 1, 1], axis=1, outputs=5)
    top, bottom = _bins(op, y1, y2, p.spatial_scale, group, op.dims(x, [2]))
    left, right = _bins(op, x1, x2, p.spatial_scale, group, op.dims(x, [3]))
    # R × G × 1 down and R × 1 × G across
    top, bottom, left, right = (op.Unsqueeze(v, [axis]) for v, axis in ((top, 2), (bottom, 2), (left, 1), (right, 1)))
    plane = op.Add(
        op.Reshape(op.Mul(op.cast(image, "int64"), channels), [-1, 1, 1, 1]),
        np.arange(channels).reshape(1, outputs, group, group),
    )
    sums = _sums(op, x, plane, (top, bottom, left, right))
    area = op.Mul(op.Relu(op.cast(op.Sub(bottom, top), x)), op.Relu(op.cast(op.Sub(right, left), x)))
    area = op.Unsqueeze(area, [1])
    return op.Where(op.Greater(area, 0), op.Div(sums, op.Max(area, 1)), 0)


def _bins(
    op: Builder, first: ir.Value, last: ir.Value, scale: float, count: int, size: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """R × bins: the pixel where each bin begins, and that behind its last, within the map."""
    start = op.Mul(round_away(op, first), scale)
    end = op.Mul(op.Add(round_away(op, last), 1), scale)
    bin_size = op.Div(op.Max(op.Sub(end, start), 0.1), float(count))
    edges = [
        op.cast(rounded(op.Add(op.Mul(bin_size, np.arange(count, dtype=np.float32) + more), start)), "int64")
        for rounded, more in ((op.Floor, 0), (op.Ceil, 1))
    ]
    begin, finish = (op.Min(op.Max(edge, 0), size) for edge in edges)
    return begin, finish


def _sums(op: Builder, x: ir.Value, plane: ir.Value, window: tuple[ir.Value, ...]) -> ir.Value:
    """Sums over windows, each from four places of a table of running sums, in float64 so that no digit is lost."""
    table = op.CumSum(op.CumSum(op.Cast(x, to="float64"), 2), 3)
    table = op.Pad(table, [0, 0, 1, 1, 0, 0, 0, 0])
    flat = op.Reshape(table, [-1])
    height, width = (op.Add(op.dims(x, [axis]), 1) for axis in (2, 3))
    top, bottom, left, right = (op.Unsqueeze(edge, [1]) for edge in window)

    def at(row: ir.Value, column: ir.Value) -> ir.Value:
        place = op.Add(op.Mul(op.Add(op.Mul(plane, height), row), width), column)
        return op.Gather(flat, place)

    ends, starts = op.Sub(at(bottom, right), at(top, right)), op.Sub(at(bottom, left), at(top, left))
    return op.cast(op.Sub(ends, starts), x)
