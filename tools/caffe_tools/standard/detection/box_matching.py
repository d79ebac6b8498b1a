"""Which ground truth each prior box of an SSD learns, and which of the others serve as negatives.

Source: Caffe-SSD src/caffe/util/bbox_util.cpp (``GetGroundTruth``, ``MatchBBox``, ``MineHardExamples``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.loop import loop
from caffe_tools.standard.detection.boxes import overlaps

_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class GroundTruth:
    """G boxes: those that count, the images that they are in, their labels (all G) and corners (G × 4)."""

    counts: ir.Value
    image: ir.Value
    label: ir.Value
    corners: ir.Value


@dataclass(frozen=True)
class Matches:
    """For each image and prior (N × P): the ground truth that it is matched to, or −1, and the largest overlap with any
    of its image; and whether an image has ground truth (N × 1)."""

    index: ir.Value
    overlap: ir.Value
    has_truth: ir.Value


def read_ground_truth(op: Builder, rows: ir.Value, images: ir.Value, use_difficult: bool) -> GroundTruth:
    """From rows (image, label, instance, xmin, ymin, xmax, ymax, difficult); the image −1 fills unused rows."""
    image, label, _, corners, difficult = op.Split(op.Reshape(rows, [-1, 8]), [1, 1, 1, 4, 1], axis=1, outputs=5)
    image, label, difficult = (op.cast(op.Squeeze(value, [1]), "int64") for value in (image, label, difficult))
    counts = op.And(op.GreaterOrEqual(image, 0), op.Less(image, images))
    if not use_difficult:
        counts = op.And(counts, op.Equal(difficult, 0))
    return GroundTruth(counts, op.Where(counts, image, 0), label, corners)


def match(
    op: Builder, truth: GroundTruth, boxes: ir.Value, batch: ir.Value, each: bool, threshold: float, only_inside: bool
) -> Matches:
    """Matches of ``boxes`` (1 × P × 4, or G × P × 4: for each ground truth those of its image).

    First each ground truth gets a box of its own: of all pairs that are left that of the largest overlap, again and
    again. Then, with ``each``, every other box gets the ground truth that it overlaps most, if by ``threshold``. With
    ``only_inside`` boxes that cross the image's border take no part.
    """
    common = overlaps(op, op.Unsqueeze(truth.corners, [1]), boxes)
    takes_part = op.And(op.Unsqueeze(truth.counts, [1]), op.Greater(common, 1e-6))
    if only_inside:
        inside = op.And(op.GreaterOrEqual(boxes, 0), op.LessOrEqual(boxes, 1))
        takes_part = op.And(takes_part, op.Equal(op.ReduceMin(op.cast(inside, "int64"), [2], keepdims=0), 1))
    common = op.Where(takes_part, common, 0)
    shape = op.Concat(batch, op.dims(boxes, [1]), axis=0)
    index = _one_box_each(op, truth, common, shape)
    rows = op.Add(op.Unsqueeze(truth.image, [1]), op.Mul(op.cast(common, "int64"), 0))
    largest = op.ScatterElements(op.Expand(op.constant(0.0), shape), rows, common, axis=0, reduction="max")
    if each:
        is_largest = op.And(takes_part, op.Equal(common, op.Gather(largest, truth.image, axis=0)))
        number = op.Unsqueeze(op.places(common, 0), [1])
        first = op.ScatterElements(
            op.Expand(op.constant(_NONE), shape), rows, op.Where(is_largest, number, _NONE), axis=0, reduction="min"
        )
        is_more = op.And(op.And(op.Less(index, 0), op.Greater(largest, 0)), op.GreaterOrEqual(largest, threshold))
        index = op.Where(is_more, first, index)
    none = op.Expand(op.constant(0), batch)
    has_truth = op.ScatterElements(none, truth.image, op.cast(truth.counts, "int64"), axis=0, reduction="max")
    return Matches(index, largest, op.Unsqueeze(op.Greater(has_truth, 0), [1]))


def _one_box_each(op: Builder, truth: GroundTruth, common: ir.Value, shape: ir.Value) -> ir.Value:
    """N × P: the ground truth that has this box for its own, or −1. Of equal overlaps the first box's counts first."""

    def take_best(op: Builder, step: ir.Value, state: Sequence[ir.Value], constants: Sequence[ir.Value]) -> list:
        (common, index), (image,) = state, constants
        best = op.ArgMax(op.Reshape(common, [-1]), axis=0, keepdims=0)
        width = op.size(common, 1)
        box, number = op.Div(best, width), op.Mod(best, width)
        is_pair = op.Greater(op.ReduceMax(common, keepdims=0), 0)
        where = op.Gather(image, number)
        place = op.Concat(op.Reshape(where, [1, 1]), op.Reshape(box, [1, 1]), axis=1)
        taken = op.ScatterND(index, place, op.Reshape(number, [1]))
        numbers = op.Range(op.constant(0), width, op.constant(1))
        boxes = op.Unsqueeze(op.places(common, 0), [1])
        # neither this ground truth, nor this box with another one of the image, can be taken again
        spent = op.Or(op.Equal(numbers, number), op.And(op.Equal(boxes, box), op.Equal(image, where)))
        return [op.Where(op.And(spent, is_pair), 0, common), op.Where(is_pair, taken, index)]

    none = op.Expand(op.constant(-1), shape)
    count = op.size(common, 0)
    _, index = loop(op, count, [op.Transpose(common, perm=[1, 0]), none], [truth.image], take_best)
    return index


def hardest(op: Builder, losses: ir.Value, eligible: ir.Value, count: ir.Value) -> ir.Value:
    """N × P: whether a prior is among the ``count`` (N × 1) eligible ones of its image with the largest losses."""
    masked = op.Where(eligible, losses, -np.inf)
    _, order = op.TopK(masked, op.dims(masked, [1]), axis=1, outputs=2)
    ranks = op.Add(op.Mul(order, 0), op.places(order, 1))
    rank = op.ScatterElements(op.Mul(order, 0), order, ranks, axis=1)
    return op.And(eligible, op.Less(rank, count))
