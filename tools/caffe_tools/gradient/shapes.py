"""Gradients of the ops that move, pick or repeat elements."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from caffe_tools.gradient.rules import NodeGradient, diffs_or_zeros, rule, sum_to_shape
from caffe_tools.graph.dims import all_known


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(n: NodeGradient, index: int) -> ir.Value:
    return n.in_shape_of_input(n.dy)


@rule("Transpose")
def transpose(n: NodeGradient, index: int) -> ir.Value:
    perm = n.attribute("perm") or list(reversed(range(len(n.shape(0)))))
    return n.op.Transpose(n.dy, perm=[int(axis) for axis in np.argsort(perm)])


@rule("SpaceToDepth")
def space_to_depth(n: NodeGradient, index: int) -> ir.Value:
    return n.op.DepthToSpace(n.dy, blocksize=n.attribute("blocksize"))


@rule("DepthToSpace")
def depth_to_space(n: NodeGradient, index: int) -> ir.Value:
    if n.attribute("mode", "DCR") != "DCR":
        raise n.error("mode CRD is not covered")
    return n.op.SpaceToDepth(n.dy, blocksize=n.attribute("blocksize"))


@rule("Expand")
def expand(n: NodeGradient, index: int) -> ir.Value:
    return sum_to_shape(n.op, n.dy, n.x[0])


@rule("Tile")
def tile(n: NodeGradient, index: int) -> ir.Value:
    """The copies lie on axes of their own once each axis is split into (repeats, dim); they add up."""
    op, repeats = n.op, n.constant(1)
    if repeats is None:
        raise n.error("the repeats must be constant")
    dims: list = []
    for times, dim in zip(repeats.tolist(), n.shape(0), strict=True):
        dims += [times, dim]
    split = op.reshape(n.dy, dims)
    return op.ReduceSum(split, list(range(0, len(dims), 2)), keepdims=0)


@rule("Concat")
def concat(n: NodeGradient, index: int) -> ir.Value:
    """The part of dy that came from this input."""
    op, axis = n.op, n.attribute("axis")
    axis %= len(n.shape(0))
    if "parts" not in n.memo:
        sizes = [n.shape(i)[axis] for i in range(len(n.x))]
        if all_known(sizes):
            lengths = op.constant(sizes, np.int64)
        else:
            lengths = op.Concat(*(op.dims(x, [axis]) for x in n.x), axis=0)
        parts = op.Split(n.dy, lengths, axis=axis, outputs=len(n.x))
        n.memo["parts"] = parts if isinstance(parts, tuple) else (parts,)
    part = n.memo["parts"][index]
    part.shape = ir.Shape(n.shape(index))
    return part


@rule("Split")
def split(n: NodeGradient, index: int) -> ir.Value:
    """The diffs of the parts side by side; a part that nobody uses has a diff of zeros."""
    return n.op.Concat(*diffs_or_zeros(n.op, n.output_diffs, n.y), axis=n.attribute("axis", 0))


@rule("Slice")
def slice_(n: NodeGradient, index: int) -> ir.Value:
    """dy with zeros where nothing was taken."""
    op, shape = n.op, n.shape(0)
    starts, ends, axes, steps = (n.constant(i) for i in range(1, 5))
    is_known = all(n.constant(i) is not None for i, x in enumerate(n.x) if i and x is not None)
    if is_known and starts is not None and ends is not None and (steps is None or (steps == 1).all()):
        taken_from = range(len(starts)) if axes is None else [int(axis) % len(shape) for axis in axes]
        if all_known([shape[axis] for axis in taken_from]):
            pads = np.zeros((2, len(shape)), np.int64)
            for axis, start, end in zip(taken_from, starts.tolist(), ends.tolist(), strict=True):
                first, stop, _ = slice(start, end).indices(shape[axis])
                pads[:, axis] = first, shape[axis] - stop
            return op.Pad(n.dy, pads.reshape(-1))
    taken = op.Slice(_flat_indices(n), *n.x[1:])
    return scatter_by_flat_index(n, taken, n.dy)


@rule("Pad")
def pad(n: NodeGradient, index: int) -> ir.Value:
    """The part of dy that is not padding."""
    op, pads = n.op, n.constant(1)
    if index != 0:
        raise n.error("its pads and value have none")
    if n.attribute("mode", "constant") != "constant" or pads is None or (len(n.x) > 3 and n.x[3] is not None):
        raise n.error("only constant pads in mode 'constant', on all axes, are covered")
    if (pads < 0).any():
        raise n.error("negative pads are not covered")
    begins, ends = np.split(pads, 2)
    stops = [-end if end else np.iinfo(np.int64).max for end in ends.tolist()]
    result = op.Slice(n.dy, begins, stops, list(range(len(begins))))
    result.shape = ir.Shape(n.shape(0))
    return result


@rule("Gather", "GatherElements", "GatherND")
def gather(n: NodeGradient, index: int) -> ir.Value:
    """dy added up at the places that it was taken from."""
    if n.node.op_type == "GatherND":
        taken = n.op.GatherND(_flat_indices(n), n.x[1], batch_dims=n.attribute("batch_dims", 0))
    else:
        pick = n.op.Gather if n.node.op_type == "Gather" else n.op.GatherElements
        taken = pick(_flat_indices(n), n.x[1], axis=n.attribute("axis", 0))
    return scatter_by_flat_index(n, taken, n.dy)


@rule("ScatterElements")
def scatter_elements(n: NodeGradient, index: int) -> ir.Value:
    """To the updates dy where they went, to the data the rest of dy (all of it where they were added)."""
    op, axis, reduction = n.op, n.attribute("axis", 0), n.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise n.error(f"reduction {reduction!r} is not covered")
    if index == 2:
        return op.GatherElements(n.dy, n.x[1], axis=axis)
    return n.dy if reduction == "add" else op.ScatterElements(n.dy, n.x[1], op.zeros(n.x[2]), axis=axis)


@rule("Dropout")
def dropout(n: NodeGradient, index: int) -> ir.Value:
    if len(n.x) > 2 and n.x[2] is not None and not (n.constant(2) is not None and not n.constant(2)):
        raise n.error("training_mode is not covered")
    return n.dy


def _flat_indices(n: NodeGradient) -> ir.Value:
    """For each element of the input its place in the flattened input."""
    op = n.op
    count = op.cast(op.Size(n.x[0]), "int64")
    return n.in_shape_of_input(op.Range(op.constant(0), count, op.constant(1)))


def scatter_by_flat_index(n: NodeGradient, taken: ir.Value, dy: ir.Value) -> ir.Value:
    """Zeros of the input's shape, with ``dy`` added at the places ``taken`` of the flattened input."""
    op = n.op
    flat = op.reshape(op.zeros(n.x[0]), [-1])
    flat = op.ScatterElements(flat, op.reshape(taken, [-1]), op.reshape(dy, [-1]), axis=0, reduction="add")
    return n.in_shape_of_input(flat)
