"""What the detection layers share: boxes coded relative to others, and the NMS that both forks write.

Boxes are corners (xmin, ymin, xmax, ymax) on the last axis.
Source: Caffe-SSD src/caffe/util/bbox_util.cpp (``EncodeBBox``, ``DecodeBBox``, ``JaccardOverlap``,
``ApplyNMSFast``).
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Enum
from caffe_tools.standard.layer import FLT_MAX

CODE_TYPE = Enum(numbers={"CORNER": 1, "CENTER_SIZE": 2, "CORNER_SIZE": 3})
"""How a box is written relative to a prior box."""


def encode(op: Builder, code_type: str, boxes: ir.Value, priors: ir.Value, variances: ir.Value | None) -> ir.Value:
    """What ``decode`` makes ``boxes`` of."""
    low, high = op.Split(priors, [2, 2], axis=-1, outputs=2)
    size = op.Sub(high, low)
    if code_type == "CENTER_SIZE":
        box_low, box_high = op.Split(boxes, [2, 2], axis=-1, outputs=2)
        move = op.Sub(op.Div(op.Add(box_low, box_high), 2), op.Div(op.Add(low, high), 2))
        growth = op.Log(op.Div(op.Sub(box_high, box_low), size))
        code = op.Concat(op.Div(move, size), growth, axis=-1)
    else:
        code = op.Sub(boxes, priors)
        if code_type == "CORNER_SIZE":
            code = op.Div(code, op.Concat(size, size, axis=-1))
    return code if variances is None else op.Div(code, variances)


def decode(op: Builder, code_type: str, code: ir.Value, priors: ir.Value, variances: ir.Value | None) -> ir.Value:
    """The boxes that ``code`` stands for; all of shape … × 4. ``variances`` (None: 1) scale the code.

    CORNER: prior + code. CORNER_SIZE: prior + code · the prior's size. CENTER_SIZE: the center is the prior's
    + code · its size, the size is the prior's · exp(code).
    """
    code = code if variances is None else op.Mul(variances, code)
    if code_type == "CORNER":
        return op.Add(priors, code)
    low, high = op.Split(priors, [2, 2], axis=-1, outputs=2)
    size = op.Sub(high, low)
    if code_type == "CORNER_SIZE":
        return op.Add(priors, op.Mul(code, op.Concat(size, size, axis=-1)))
    place, growth = op.Split(code, [2, 2], axis=-1, outputs=2)
    center = op.Add(op.Mul(place, size), op.Div(op.Add(low, high), 2))
    half = op.Div(op.Mul(op.Exp(growth), size), 2)
    return op.Concat(op.Sub(center, half), op.Add(center, half), axis=-1)


def overlaps(op: Builder, one: ir.Value, many: ir.Value) -> ir.Value:
    """Intersection over union of a box (… × 1 × 4) with others (… × P × 4): … × P, 0 where they share no area."""
    low, high = op.Split(one, [2, 2], axis=-1, outputs=2)
    lows, highs = op.Split(many, [2, 2], axis=-1, outputs=2)
    sides = op.Sub(op.Min(high, highs), op.Max(low, lows))
    common = op.ReduceProd(op.Relu(sides), [-1], keepdims=0)
    area, areas = (op.ReduceProd(op.Sub(*ends), [-1], keepdims=0) for ends in ((high, low), (highs, lows)))
    union = op.Sub(op.Add(area, areas), common)
    return op.Where(op.Greater(common, 0), op.Div(common, union), 0)


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
    return op.NonMaxSuppression(boxes, scores, most, [overlap], [-FLT_MAX if least_score is None else least_score])


def among_the_best(op: Builder, scores: ir.Value, count: int) -> ir.Value:
    """Whether a score is one of the ``count`` best along the last axis; of equal ones the first are."""
    rank = len(op.shape(scores))
    size = op.dims(scores, [rank - 1])
    _, best = op.TopK(scores, op.Min(size, op.constant([count])), axis=rank - 1, outputs=2)
    none = op.Expand(op.constant(False, "bool"), op.dims(scores, range(rank)))
    chosen = op.Expand(op.constant(True, "bool"), op.Shape(best))
    return op.ScatterElements(none, best, chosen, axis=rank - 1)


def flat_places(op: Builder, table: ir.Value, *indices: ir.Value) -> ir.Value:
    """The rows that ``indices`` (rows × 1 each) name on the first axes of ``table``, counted through these axes.

    Gather takes them from ``table`` with these axes made one. GatherND would take them at once, but OpenCV 5 has it not
    for bool, and dies of no rows.
    """
    place, *rest = indices
    for axis, index in enumerate(rest, start=1):
        place = op.Add(op.Mul(place, op.dims(table, [axis])), index)
    return op.Squeeze(place, [1])
