"""Proposal: the RPN's predictions as regions of interest (Faster R-CNN), as a C++ layer and as the Python layer.

Source: py-faster-rcnn lib/rpn/proposal_layer.py, lib/rpn/generate_anchors.py, lib/fast_rcnn/config.py; PVANet's
src/caffe/layers/proposal_layer.cpp, src/caffe/proto/caffe.proto (ProposalParameter).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Float, Repeated, UInt
from caffe_tools.standard.detection.nms import among_the_best, non_maximum_suppression
from caffe_tools.standard.examples import image_sizes
from caffe_tools.standard.layer import Layer, param_values
from caffe_tools.standard.registry import layer_type, python_layer_type

RATIOS, SCALES = (0.5, 1.0, 2.0), (8.0, 16.0, 32.0)
"""height / width of the anchors, and their sizes in base boxes."""


@dataclass(frozen=True)
class Settings:
    """What the two layers are told, or take for granted."""

    stride: int
    anchors: np.ndarray
    """A × 4 corners around the first position."""
    before_nms: int
    after_nms: int
    overlap: float
    min_size: float
    drops_small: bool
    """Whether a box that is too small is dropped (the Python layer), or stands at the end with the score 0."""


@layer_type(
    "Proposal",
    bottoms=3,
    tops=(1, 2),
    proposal_param={
        "feat_stride": UInt(16),
        "base_size": UInt(16),
        "min_size": UInt(16),
        "ratio": Repeated(Float()),
        "scale": Repeated(Float()),
        "pre_nms_topn": UInt(6000),
        "post_nms_topn": UInt(300),
        "nms_thresh": Float(0.7),
    },
)
def proposal(op: Builder, layer: Layer, scores: ir.Value, deltas: ir.Value, image: ir.Value) -> tuple[ir.Value, ...]:
    """R × 5 rows (image, x1, y1, x2, y2), and their scores (R): the anchors moved and scaled by the RPN, after NMS.

    Bottoms: scores (N × 2A × H × W, the foreground behind the background), deltas (N × 4A × H × W) and the images'
    (height, width, scale; or the scales of both axes). Boxes are cut to the image; those smaller than
    ``min_size`` · scale get the score 0; the ``pre_nms_topn`` best go through NMS, of which ``post_nms_topn`` come out.
    No gradient passes.
    """
    p = layer.proposal_param
    ratios, scales = p.ratio or RATIOS, p.scale or SCALES
    if not all(0 < value < math.inf for value in (*ratios, *scales, p.feat_stride, p.base_size)):
        raise layer.error("feat_stride, base_size, ratio and scale must be positive", "proposal_param")
    if not p.nms_thresh >= 0:
        raise layer.error(f"nms_thresh {p.nms_thresh:g} must be 0 or more", "proposal_param")
    anchors = make_anchors(p.base_size, ratios, scales, lambda x: np.floor(x + 0.5))
    settings = Settings(
        p.feat_stride, anchors, p.pre_nms_topn, p.post_nms_topn, p.nms_thresh, p.min_size, drops_small=False
    )
    rois, kept = _proposals(op, layer, (scores, deltas, image), settings)
    return (rois, op.Squeeze(kept, [1]))[: layer.top_count]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _are_scales(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_number(item) and item > 0 for item in value)


@python_layer_type("rpn.proposal_layer", "ProposalLayer", bottoms=3, tops=(1, 2))
def proposal_layer(
    op: Builder, layer: Layer, scores: ir.Value, deltas: ir.Value, image: ir.Value
) -> tuple[ir.Value, ...]:
    """R × 5 rows (image, x1, y1, x2, y2), and their scores (R × 1), as of the C++ layer Proposal.

    ``param_str`` gives ``feat_stride`` and maybe ``scales`` (8, 16, 32) and, as in PVANet's repository, ``ratios``
    (0.5, 1, 2), height over width. Boxes that are too small are dropped. What
    py-faster-rcnn reads from its own config is taken to be its default, in TRAIN 12000 boxes before NMS and 2000 after
    it, in TEST 6000 and 300, NMS at 0.7, least size 16; ``param_str`` may give another RPN_PRE_NMS_TOP_N,
    RPN_POST_NMS_TOP_N, RPN_NMS_THRESH or RPN_MIN_SIZE, which the original ignores.
    """
    numbers = ("feat_stride", "RPN_PRE_NMS_TOP_N", "RPN_POST_NMS_TOP_N", "RPN_NMS_THRESH", "RPN_MIN_SIZE")
    values = param_values(layer, {**dict.fromkeys(numbers, _is_number), "scales": _are_scales, "ratios": _are_scales})
    if not values.get("feat_stride"):
        raise layer.error("param_str must give a positive feat_stride: \"'feat_stride': 16\"", "python_param")
    before, after = (12000, 2000) if layer.phase == "TRAIN" else (6000, 300)
    settings = Settings(
        stride=values["feat_stride"],
        anchors=make_anchors(16, values.get("ratios", RATIOS), values.get("scales", SCALES), np.round),
        before_nms=int(values.get("RPN_PRE_NMS_TOP_N", before)),
        after_nms=int(values.get("RPN_POST_NMS_TOP_N", after)),
        overlap=values.get("RPN_NMS_THRESH", 0.7),
        min_size=values.get("RPN_MIN_SIZE", 16),
        drops_small=True,
    )
    return _proposals(op, layer, (scores, deltas, image), settings)[: layer.top_count]


def make_anchors(
    base: int, ratios: Sequence[float], scales: Sequence[float], rounded: Callable[[float], float]
) -> np.ndarray:
    """A × 4 corners of boxes around the center of the base box: each ratio (its sides rounded) in each scale."""
    center = (base - 1) / 2
    anchors = []
    for ratio in ratios:
        width = rounded(np.sqrt(base * base / ratio))
        sides = np.array([width, rounded(width * ratio)])
        for scale in scales:
            half = (sides * scale - 1) / 2
            anchors.append(np.r_[center - half, center + half])
    return np.asarray(anchors, np.float32)


def _proposals(op: Builder, layer: Layer, bottoms: Sequence[ir.Value], settings: Settings) -> tuple[ir.Value, ir.Value]:
    """The rows, and their scores as a column."""
    scores, deltas, image = bottoms
    _check(op, layer, bottoms, len(settings.anchors))
    layer.examples[2] = image_sizes(op.shape(scores), settings.stride)
    boxes = _boxes(op, deltas, image, settings)
    foreground = op.Slice(scores, [len(settings.anchors)], [2 * len(settings.anchors)], [1])
    # by position, then anchor, as the boxes
    flat = op.Reshape(op.Transpose(foreground, perm=[0, 2, 3, 1]), op.Concat(op.dims(scores, [0]), [-1], axis=0))
    flat = op.Where(_is_large(op, boxes, image, settings.min_size), flat, -np.inf if settings.drops_small else 0)
    candidates = flat
    if settings.before_nms:
        candidates = op.Where(among_the_best(op, flat, settings.before_nms), flat, -np.inf)
    # the original counts the pixels at both ends: a box one pixel longer gives the same overlaps
    longer = op.Add(boxes, np.array([0, 0, 1, 1], np.float32))
    found = non_maximum_suppression(
        op, longer, op.Unsqueeze(candidates, [1]), settings.overlap, at_most=settings.after_nms or None
    )
    number, _, box = op.Split(found, [1, 1, 1], axis=1, outputs=3)
    place = op.Concat(number, box, axis=1)
    rois = op.Concat(op.cast(number, boxes), op.GatherND(boxes, place), axis=1)
    kept = op.Unsqueeze(op.GatherND(flat, place), [1])
    op.define_gradient([rois, kept], bottoms, lambda *diffs: [None, None, None])
    return rois, kept


def _check(op: Builder, layer: Layer, bottoms: Sequence[ir.Value], anchors: int) -> None:
    for index, per_anchor in ((0, 2), (1, 4)):
        shape = op.shape(bottoms[index])
        if len(shape) != 4 or shape[1] != per_anchor * anchors:
            raise layer.misfit(index, shape, f", but {anchors} anchors need N×{per_anchor * anchors}×H×W")
    shape = op.shape(bottoms[2])
    if len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 3:
        raise layer.misfit(2, shape, ", but must be N×3: (height, width, scale) a row")


def _boxes(op: Builder, deltas: ir.Value, image: ir.Value, settings: Settings) -> ir.Value:
    """N × (H · W · A) × 4: the anchors of every position, moved and scaled as the deltas say, and cut to the image."""
    rows, columns = (
        op.Mul(op.Range(op.constant(0.0), op.count(deltas, [axis]), op.constant(1.0)), float(settings.stride))
        for axis in (2, 3)
    )
    down, across = op.Reshape(rows, [-1, 1, 1, 1]), op.Reshape(columns, [1, -1, 1, 1])
    # x and y of the positions: H × W × 1 × 2
    shift = op.Concat(op.Add(across, op.Mul(down, 0)), op.Add(down, op.Mul(across, 0)), axis=3)
    low = op.Add(shift, settings.anchors[:, :2])
    sizes = settings.anchors[:, 2:] - settings.anchors[:, :2] + 1
    center = op.Reshape(op.Add(low, sizes / 2), [1, -1, 2])
    size = op.Reshape(op.Add(op.Mul(shift, 0), sizes), [1, -1, 2])
    coded = op.Reshape(
        op.Transpose(deltas, perm=[0, 2, 3, 1]), op.Concat(op.dims(deltas, [0]), op.constant([-1, 4]), axis=0)
    )
    move, growth = op.Split(coded, [2, 2], axis=2, outputs=2)
    center = op.Add(op.Mul(move, size), center)
    half = op.Mul(op.Mul(op.Exp(growth), size), 0.5)
    boxes = op.Concat(op.Sub(center, half), op.Add(center, half), axis=2)
    last = op.Sub(op.Gather(image, [1, 0, 1, 0], axis=1), 1)
    return op.Max(op.Min(boxes, op.Unsqueeze(last, [1])), 0)


def _is_large(op: Builder, boxes: ir.Value, image: ir.Value, min_size: float) -> ir.Value:
    """N × boxes: whether both sides of a box reach the least size, which is given for the unscaled image."""
    low, high = op.Split(boxes, [2, 2], axis=2, outputs=2)
    sides = op.Add(op.Sub(high, low), 1)
    # a fourth number is the scale across, the third then that down
    columns = [3, 2] if op.shape(image)[1] > 3 else [2, 2]
    least = op.Unsqueeze(op.Mul(op.Gather(image, columns, axis=1), float(min_size)), [1])
    return op.Equal(op.ReduceMin(op.cast(op.GreaterOrEqual(sides, least), "int64"), [2], keepdims=0), 1)
