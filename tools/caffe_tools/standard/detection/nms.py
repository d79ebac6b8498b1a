"""Non-maximum suppression: of boxes that overlap the best.

Source: Caffe-SSD src/caffe/util/bbox_util.cpp (``ApplyNMSFast``, ``JaccardOverlap``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.loop import loop
from caffe_tools.standard.detection.boxes import overlaps
from caffe_tools.standard.layer import FLT_MAX


def among_the_best(op: Builder, scores: ir.Value, count: int) -> ir.Value:
    """Whether a score is one of the ``count`` best along the last axis; of equal ones the first are."""
    rank = len(op.shape(scores))
    size = op.dims(scores, [rank - 1])
    _, best = op.TopK(scores, op.Min(size, op.constant([count])), axis=rank - 1, outputs=2)
    none = op.Expand(op.constant(False, "bool"), op.dims(scores, range(rank)))
    chosen = op.Expand(op.constant(True, "bool"), op.Shape(best))
    return op.ScatterElements(none, best, chosen, axis=rank - 1)


def without_inverted(op: Builder, boxes: ir.Value) -> ir.Value:
    """``boxes``, but 0 for one that ends before it begins: in Caffe it overlaps nothing, ONNX would turn it round."""
    low, high = op.Split(boxes, [2, 2], axis=-1, outputs=2)
    is_box = op.ReduceMin(op.cast(op.GreaterOrEqual(high, low), boxes), [-1], keepdims=1)
    return op.Mul(boxes, is_box)


def non_maximum_suppression(
    op: Builder,
    boxes: ir.Value,
    scores: ir.Value,
    overlap: float,
    least_score: float | None = None,
    at_most: int | None = None,
) -> ir.Value:
    """Rows (image, class, box) of the boxes kept, for each image and class from the highest score down.

    ``boxes`` images × P × 4, ``scores`` images × classes × P. A box is taken if its score is above ``least_score``
    (default: any but −inf) and its overlap with no box kept before is above ``overlap``. Of equal scores the first box
    goes first. Caffe and ONNX agree in all of this.
    """
    most = op.constant([at_most], "int64") if at_most is not None else op.dims(boxes, [1])
    return op.NonMaxSuppression(
        boxes, scores, most, [min(overlap, 1.0)], [-FLT_MAX if least_score is None else least_score]
    )


def adaptive_nms(
    op: Builder, boxes: ir.Value, scores: ir.Value, overlap: float, eta: float, least_score: float | None
) -> ir.Value:
    """NMS whose threshold falls with every box that is kept, which ONNX's operator does not know: rows
    (image, 0, box) of the boxes kept, for each image from the highest score down.

    ``boxes`` images × P × 4, ``scores`` images × 1 × P, −inf for a box that takes no part. The threshold ``overlap`` is
    multiplied by ``eta`` whenever a box is kept, for as long as it is above 0.5.
    """
    images = op.shape(boxes)[0]
    flat = op.Squeeze(scores, [1])
    size = op.dims(flat, [1])
    sorted_scores, order = op.TopK(flat, size, axis=1, outputs=2)
    places = op.Expand(op.Unsqueeze(order, [2]), op.constant([1, 1, 4]))
    sorted_boxes = op.GatherElements(boxes, places, axis=1)
    eligible = op.Greater(sorted_scores, -np.inf if least_score is None else least_score)
    thresholds = op.Expand(op.constant(overlap, boxes.dtype.numpy()), op.Concat(op.dims(boxes, [0]), [1], axis=0))
    thresholds.shape = ir.Shape([images, 1])

    def step(op: Builder, index: ir.Value, state: Sequence[ir.Value], constants: Sequence[ir.Value]) -> list[ir.Value]:
        (kept, threshold), (boxes, eligible) = state, constants
        here = op.Reshape(index, [1])
        candidate = op.Gather(boxes, here, axis=1)
        blocked = op.And(kept, op.Greater(overlaps(op, candidate, boxes), threshold))
        clear = op.Equal(op.ReduceMax(op.cast(blocked, "int64"), [1], keepdims=1), 0)
        taken = op.And(clear, op.Gather(eligible, here, axis=1))
        is_here = op.Equal(op.places(kept, 1), index)
        falls = op.And(taken, op.Greater(threshold, 0.5))
        return [op.Or(kept, op.And(taken, is_here)), op.Where(falls, op.Mul(threshold, eta), threshold)]

    nothing = op.And(eligible, op.constant(False, "bool"))
    kept, _ = loop(op, op.Squeeze(size, [0]), [nothing, thresholds], [sorted_boxes, eligible], step)
    found = op.Transpose(op.NonZero(kept), perm=[1, 0])
    image, rank = op.Split(found, [1, 1], axis=1, outputs=2)
    box = op.Gather(op.Reshape(order, [-1]), flat_places(op, order, image, rank))
    return op.Concat(image, op.Mul(image, 0), op.Unsqueeze(box, [1]), axis=1)


def flat_places(op: Builder, table: ir.Value, *indices: ir.Value) -> ir.Value:
    """The rows that ``indices`` (rows × 1 each) name on the first axes of ``table``, counted through these axes.

    Gather takes them from ``table`` with these axes made one. GatherND would take them at once, but OpenCV 5 has it not
    for bool, and dies of no rows.
    """
    place, *rest = indices
    for axis, index in enumerate(rest, start=1):
        place = op.Add(op.Mul(place, op.dims(table, [axis])), index)
    return op.Squeeze(place, [1])
