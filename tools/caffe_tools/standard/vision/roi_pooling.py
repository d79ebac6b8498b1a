"""ROIPooling: the part of a feature map under each region of interest, max-pooled to one size (Fast R-CNN).

Source: caffe-fast-rcnn src/caffe/layers/roi_pooling_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.loop import loop
from caffe_tools.prototxt.fields import Float, UInt
from caffe_tools.standard.examples import regions
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type(
    "ROIPooling",
    bottoms=2,
    regions=1,
    roi_pooling_param={"pooled_h": UInt(0), "pooled_w": UInt(0), "spatial_scale": Float(1.0)},
)
def roi_pooling(op: Builder, layer: Layer, x: ir.Value, rois: ir.Value) -> ir.Value:
    """R × channels × pooled_h × pooled_w: the greatest value of each bin of each region (image, x1, y1, x2, y2).

    Corners are scaled by ``spatial_scale`` and rounded (halves away from 0), and both belong to the region, which is
    1 wide and high at least. A bin reaches from the pixel in which it begins to that in which it ends; one outside the
    map gives 0. ONNX's MaxRoiPool is defined alike. The gradient goes to the first greatest element; regions get none.
    """
    p = layer.roi_pooling_param
    rois_ = check_rois(op, layer, x, rois, p.spatial_scale)
    if not p.pooled_h or not p.pooled_w:
        raise layer.error("pooled_h and pooled_w must be given, and be 1 or more", "roi_pooling_param")
    if not 0 < p.spatial_scale < math.inf:
        raise layer.error(f"spatial_scale {p.spatial_scale:g} must be above 0", "roi_pooling_param")
    size = (p.pooled_h, p.pooled_w)
    y = op.MaxRoiPool(x, rois_, pooled_shape=size, spatial_scale=p.spatial_scale)

    def gradient(dy: ir.Value) -> list[ir.Value | None]:
        return [_gradient(op, x, rois_, dy, size, p.spatial_scale), None]

    op.define_gradient([y], [x, rois], gradient)
    return y


def check_rois(op: Builder, layer: Layer, x: ir.Value, rois: ir.Value, scale: float | None) -> ir.Value:
    """The regions as R × 5, of images that the map shows ``scale`` as large; NetError where they, or the map, have
    another form."""
    layer.expect_axes(0, x, 4)
    shape = op.shape(rois)
    if len(shape) < 2 or [dim for dim in shape[1:] if dim != 1] != [5]:
        raise layer.misfit(1, shape, ", but must be R×5: (image, x1, y1, x2, y2) a row")
    layer.examples[1] = regions(op.shape(x), abs(scale or 1))
    return op.reshape(rois, [shape[0], 5])


def round_away(op: Builder, x: ir.Value) -> ir.Value:
    """C's round(): to the nearest whole number, halves away from 0 (ONNX's Round takes them to the even one)."""
    size = op.Abs(x)
    whole = op.Floor(size)
    up = op.cast(op.GreaterOrEqual(op.Sub(size, whole), 0.5), x)
    return op.Mul(op.Sign(x), op.Add(whole, up))


def _gradient(
    op: Builder, x: ir.Value, rois: ir.Value, dy: ir.Value, size: tuple[int, int], spatial_scale: float
) -> ir.Value:
    """``dy`` added up at the elements that won their bins, region by region."""
    channels = op.shape(x)[1]

    def add_region(op: Builder, index: ir.Value, state: Sequence[ir.Value], constants: Sequence[ir.Value]) -> list:
        (dx,), (x, rois, dy) = state, constants
        region = op.Gather(rois, index, axis=0)
        image = op.cast(op.Gather(region, 0), "int64")
        map_ = op.Gather(x, image, axis=0)
        corners = op.cast(round_away(op, op.Mul(op.Slice(region, [1], [5]), spatial_scale)), "int64")
        x1, y1, x2, y2 = op.Split(corners, [1, 1, 1, 1], axis=0, outputs=4)
        height, width = op.size(x, 2), op.size(x, 3)
        rows = _bins(op, y1, y2, size[0], height)
        columns = _bins(op, x1, x2, size[1], width)
        # the first greatest element of each bin: the best column of each row, then the best row
        in_columns = op.Where(columns, op.Unsqueeze(map_, [2]), -np.inf)
        column = op.ArgMax(in_columns, axis=3, keepdims=0)
        best = op.Unsqueeze(op.ReduceMax(in_columns, [3], keepdims=0), [1])
        row = op.ArgMax(op.Where(op.Unsqueeze(rows, [2]), best, -np.inf), axis=2, keepdims=0)
        column = op.GatherElements(column, row, axis=1)
        channel = op.constant(np.arange(channels).reshape(-1, 1, 1))
        place = op.Add(op.Mul(image, channels), channel)
        place = op.Add(op.Mul(op.Add(op.Mul(place, height), row), width), column)
        is_full = op.And(_any(op, rows), op.Transpose(_any(op, columns), perm=[1, 0]))
        diff = op.Where(is_full, op.Gather(dy, index, axis=0), 0)
        return [op.ScatterElements(dx, op.Reshape(place, [-1]), op.Reshape(diff, [-1]), axis=0, reduction="add")]

    count = op.size(rois, 0)
    flat = op.reshape(op.zeros(x), [-1])
    (dx,) = loop(op, count, [flat], [x, rois, dy], add_region)
    return op.Reshape(dx, op.dims(x, range(4)))


def _bins(op: Builder, first: ir.Value, last: ir.Value, count: int, size: ir.Value) -> ir.Value:
    """Whether a place along one axis (last dim) lies in a bin (first dim)."""
    extent = op.cast(op.Max(op.Add(op.Sub(last, first), 1), 1), "float32")
    bin_size = op.Div(extent, float(count))
    starts = op.Add(op.cast(op.Floor(op.Mul(bin_size, np.arange(count, dtype=np.float32))), "int64"), first)
    ends = op.Add(op.cast(op.Ceil(op.Mul(bin_size, np.arange(1, count + 1, dtype=np.float32))), "int64"), first)
    places = op.Unsqueeze(op.Range(op.constant(0), size, op.constant(1)), [0])
    return op.And(op.GreaterOrEqual(places, op.Unsqueeze(starts, [1])), op.Less(places, op.Unsqueeze(ends, [1])))


def _any(op: Builder, mask: ir.Value) -> ir.Value:
    """bins × 1: whether a bin has any place."""
    return op.Greater(op.ReduceMax(op.cast(mask, "int64"), [1], keepdims=1), 0)
