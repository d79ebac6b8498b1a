"""Boxes coded relative to others, and how much two overlap. A box is corners (xmin, ymin, xmax, ymax) on the last axis.

Source: Caffe-SSD src/caffe/util/bbox_util.cpp (``EncodeBBox``, ``DecodeBBox``, ``JaccardOverlap``).
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Enum

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
