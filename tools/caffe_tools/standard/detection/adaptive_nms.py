"""NMS whose threshold falls with every box that is kept (``eta`` below 1), which ONNX's operator has not.

Source: Caffe-SSD src/caffe/util/bbox_util.cpp (``ApplyNMSFast``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from caffe_tools.graph.builder import Builder
from caffe_tools.graph.loop import loop
from caffe_tools.standard.detection.boxes import flat_places, overlaps


def adaptive_nms(
    op: Builder, boxes: ir.Value, scores: ir.Value, overlap: float, eta: float, least_score: float | None
) -> ir.Value:
    """Rows (image, 0, box) of the boxes kept, for each image from the highest score down.

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
