"""PriorBox: the boxes that an SSD's predictions are relative to, for each position of a feature map.

Source: Caffe-SSD src/caffe/layers/prior_box_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Repeated, UInt
from caffe_tools.standard.layer import Layer, both_axes
from caffe_tools.standard.registry import layer_type

MOST_PIXELS = 2**31 - 1


@layer_type(
    "PriorBox",
    bottoms=2,
    prior_box_param={
        "min_size": Repeated(Float()),
        "max_size": Repeated(Float()),
        "aspect_ratio": Repeated(Float()),
        "flip": Bool(True),
        "clip": Bool(False),
        "variance": Repeated(Float()),
        **both_axes("img_size", UInt()),
        **both_axes("step", Float()),
        "offset": Float(0.5),
    },
)
def prior_box(op: Builder, layer: Layer, feature: ir.Value, image: ir.Value) -> ir.Value:
    """1 × 2 × 4K: corners (xmin, ymin, xmax, ymax, as parts of the image) of K prior boxes, and their variances.

    At each position of the first bottom's map, row by row, for each ``min_size``: its square, the square of side
    √(min·max) where there is a ``max_size``, then min·√r × min/√r for each aspect ratio r other than 1. The map's
    size and the image's (the second bottom's, where no ``img_size`` is given) are all that it reads of its bottoms.
    """
    map_size = layer.expect_axes(0, feature, 4)[2:]
    seen_size = layer.expect_axes(1, image, 4)[2:]
    sizes, variance = _box_sizes(layer), _variance(layer)
    image_size = _positive_pair(layer, "img_size") or seen_size
    steps = _positive_pair(layer, "step")
    dims = (*map_size, *image_size)
    if all(isinstance(dim, (int, float)) for dim in dims):
        return op.Constant(value=ir.tensor(_stored(layer, dims, steps, sizes, variance)))
    return _computed(op, layer, (feature, image), image_size, steps, sizes, variance)


def _box_sizes(layer: Layer) -> np.ndarray:
    """(width, height) of the boxes at each position, in pixels, rounded where Caffe rounds."""
    p = layer.prior_box_param
    if not p.min_size or not all(size > 0 for size in p.min_size):
        raise layer.error("min_size must be given, and be positive", "prior_box_param")
    for name, values in (("min_size", p.min_size), ("max_size", p.max_size)):
        if not all(size <= MOST_PIXELS for size in values):  # Caffe keeps them in ints
            raise layer.error(f"{name} {max(values):g} is beyond all reason: give pixels", "prior_box_param")
    if p.max_size and len(p.max_size) != len(p.min_size):
        raise layer.error(
            f"max_size is given {len(p.max_size)} times for {len(p.min_size)} min_size: give one for each, or none"
        )
    if not all(high > low for low, high in zip(p.min_size, p.max_size, strict=False)):
        raise layer.error(f"each max_size {list(p.max_size)} must be greater than its min_size {list(p.min_size)}")
    ratios = _aspect_ratios(layer)
    sizes = []
    for index, size in enumerate(p.min_size):
        least = int(size)
        sizes.append((least, least))
        if p.max_size:
            side = np.sqrt(least * int(p.max_size[index]))
            sizes.append((side, side))
        sizes += [(least * np.sqrt(ratio), least / np.sqrt(ratio)) for ratio in ratios]
    return np.asarray(sizes, np.float32)


def _aspect_ratios(layer: Layer) -> list[np.float32]:
    """The ratios other than 1, in Caffe's order: a ratio already there (1, to begin with) is not taken again."""
    p = layer.prior_box_param
    if not all(0 < ratio < math.inf for ratio in p.aspect_ratio):
        raise layer.error(f"aspect_ratio {list(p.aspect_ratio)} must be positive", "prior_box_param")
    ratios = [np.float32(1)]
    for ratio in np.asarray(p.aspect_ratio, np.float32):
        if not any(abs(ratio - known) < 1e-6 for known in ratios):
            ratios += [ratio, np.float32(1 / ratio)] if p.flip else [ratio]
    return [ratio for ratio in ratios if abs(ratio - 1) >= 1e-6]


def _variance(layer: Layer) -> np.ndarray:
    variance = list(layer.prior_box_param.variance) or [0.1]
    if len(variance) not in (1, 4) or not all(value > 0 for value in variance):
        raise layer.error(f"variance {variance} must be one positive number, or four", "prior_box_param")
    return np.asarray(variance, np.float32)


def _positive_pair(layer: Layer, name: str) -> list[float] | None:
    values = layer.optional_pair("prior_box_param", name)
    if values and not all(0 < value < math.inf for value in values):
        raise layer.error(f"{name} must be positive, not {values}", "prior_box_param")
    return values


def _stored(
    layer: Layer, dims: Sequence[float], steps: Sequence[float] | None, sizes: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """The boxes of a map and an image whose sizes are known, rounded to float32 where Caffe rounds."""
    (rows, columns), image = map(int, dims[:2]), dims[2:]
    ends = []
    for axis, count in enumerate((rows, columns)):
        step = np.float32(steps[axis] if steps else image[axis] / count)
        centers = ((np.arange(count, dtype=np.float32) + np.float32(layer.prior_box_param.offset)) * step)[:, None]
        half = sizes[:, 1 - axis].astype(float) / 2
        ends.append(((centers - half) / image[axis], (centers + half) / image[axis]))
    boxes = np.empty((rows, columns, len(sizes), 4), np.float32)
    boxes[..., 1], boxes[..., 3] = (end[:, None] for end in ends[0])
    boxes[..., 0], boxes[..., 2] = (end[None] for end in ends[1])
    if layer.prior_box_param.clip:
        boxes = boxes.clip(0, 1)
    return np.stack([boxes.reshape(-1), np.broadcast_to(variance, boxes.shape).reshape(-1)])[None]


def _computed(
    op: Builder,
    layer: Layer,
    bottoms: Sequence[ir.Value],
    image_size: Sequence[float | str],
    steps: Sequence[float] | None,
    sizes: np.ndarray,
    variance: np.ndarray,
) -> ir.Value:
    """The same computed when the graph runs, since only then a size is known."""
    counts, parts = [], []
    for axis in range(2):
        count = op.count(bottoms[0], [axis + 2])
        known = isinstance(image_size[axis], (int, float))
        size = op.constant(float(image_size[axis])) if known else op.count(bottoms[1], [axis + 2])
        step = op.constant(steps[axis]) if steps else op.Div(size, count)
        places = op.Range(op.constant(0.0), count, op.constant(1.0))
        # positions × 1, as rows or as columns of the map
        centers = op.Unsqueeze(op.Mul(op.Add(places, layer.prior_box_param.offset), step), [1 - axis, 2])
        half = sizes[:, 1 - axis] / 2
        parts.append((op.Div(op.Sub(centers, half), size), op.Div(op.Add(centers, half), size)))
        counts.append(op.Reshape(op.cast(count, "int64"), [1]))
    (top, bottom), (left, right) = parts
    shape = op.Concat(*counts, op.constant([len(sizes), 1], np.int64), axis=0)
    ends = [op.Expand(op.Unsqueeze(end, [3]), shape) for end in (left, top, right, bottom)]
    boxes = op.Concat(*ends, axis=3)
    if layer.prior_box_param.clip:
        boxes = op.Clip(boxes, 0.0, 1.0)
    variances = op.Expand(op.constant(variance, np.float32), op.Shape(boxes))
    both = op.Concat(op.Reshape(boxes, [1, 1, -1]), op.Reshape(variances, [1, 1, -1]), axis=1)
    return op.without_gradient(both, *bottoms)
