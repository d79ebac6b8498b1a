"""What a loss is to learn: labels, targets and weights, checked and laid out like the scores.

Scores have C channels on ``axis``; the dims before it are the outer ones, those after it the inner ones, and one
*position* is one place of both. Every array is seen as outer x C x inner, or outer x inner where it holds one value per
position.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from caffe_layers.layer import LabelError, ParameterError, ShapeError

BLOCK = 1 << 15
"""Elements of the scores worked on at a time: they and what is computed from them stay in a core's cache."""


class Layout(namedtuple("Layout", "shape axis outer channels inner")):
    """How the scores of ``shape`` are seen: ``outer`` x ``channels`` x ``inner``."""

    @classmethod
    def of(cls, shape, axis):
        shape = tuple(shape)
        if not -len(shape) <= axis < len(shape):
            raise ParameterError(f"axis is {axis}, but the scores (bottom[0]) have the {len(shape)} axes of {shape}")
        axis %= len(shape)
        if shape[axis] == 0:
            raise ShapeError(f"the scores (bottom[0]) have the shape {shape}: no channel on axis {axis}")
        return cls(shape, axis, math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))

    @property
    def positions(self):
        return self.outer * self.inner

    def channelwise(self, array):
        return array.reshape(self.outer, self.channels, self.inner)

    def positionwise(self, array):
        return array.reshape(self.outer, self.inner)

    def blocks(self):
        """(outer slice, inner slice) pairs that cover all positions in cache-sized steps."""
        columns = max(1, min(self.inner, BLOCK // self.channels))
        rows = max(1, BLOCK // (self.channels * columns))
        for row in range(0, self.outer, rows):
            for column in range(0, self.inner, columns):
                yield slice(row, row + rows), slice(column, column + columns)


def check_bottoms(layout, target, labels, weights, weights_per_element=False, other_shape=False):
    """Raise ShapeError where the shapes ``labels`` and ``weights`` (or None) do not fit the scores and the target.

    ``other_shape`` lets dense targets have the scores' count in another shape, ``weights_per_element`` lets weights.
    """
    labels, count = tuple(labels), math.prod(labels)
    dense = other_shape and count == math.prod(layout.shape) or labels == layout.shape
    if target == "index" and count != layout.positions:
        hint = " (of the scores' shape: another target than index would fit)" if dense else ""
        raise ShapeError(
            f"labels (bottom[1]) have the shape {labels}{hint}, but target index wants {layout.positions} of them,"
            f" one per position of the scores {layout.shape} with axis {layout.axis}"
        )
    if target != "index" and not dense:
        hint = " (one per position: target index would fit)" if count == layout.positions else ""
        wanted = f"{math.prod(layout.shape)} of them" if other_shape else f"the scores' shape {layout.shape}"
        raise ShapeError(f"labels (bottom[1]) have the shape {labels}{hint}, but target {target} wants {wanted}")
    if weights is not None and math.prod(weights) != layout.positions:
        if not (weights_per_element and target != "index" and math.prod(weights) == math.prod(layout.shape)):
            raise ShapeError(
                f"weights (bottom[2]) have the shape {tuple(weights)}, but there must be {layout.positions},"
                f" one per position of the scores {layout.shape} with axis {layout.axis}"
                + (f", or {math.prod(layout.shape)}, one per element" if weights_per_element else "")
            )


def per_class(name, value, channels, dtype):
    """A list parameter as channels x 1 array, a number as float, null as None. Raises ParameterError."""
    if not isinstance(value, list):
        return value
    if len(value) != channels:
        raise ParameterError(f"{name} has {len(value)} numbers, but there are {channels} channels")
    return np.array(value, dtype).reshape(channels, 1)


def read_weights(weights):
    """The weights as they are, all finite and 0 or more, or None. Raises LabelError."""
    place = None if weights is None else _first_outside(weights, 0, math.inf)
    if place is not None:
        raise LabelError(
            f"weights (bottom[2]) must be finite and 0 or more, but the one at {place} is {weights[place]}"
        )
    return weights


def _first_outside(values, low, high):
    """The place of the first value that is not finite or not within low and high, or None."""
    if values.size == 0 or (values.min() >= low and values.max() <= min(high, np.finfo(np.float64).max)):
        return None
    wrong = ~((values >= low) & (values <= high) & np.isfinite(values))
    return tuple(int(at) for at in np.argwhere(wrong)[0])


class IndexTarget:
    """One label per position.

    ``channel`` (outer x inner) holds the channel that each label names, 0 where it names none; ``ignored``, ``counted``
    and ``named`` (has a channel) are masks. Raises LabelError where a label is neither valid nor ``ignore_label``.
    """

    def __init__(self, labels, layout, ignore_label, background_label, background_has_a_channel):
        # A background without a channel is one more valid label, and the labels above it move down by one.
        shifted = background_label is not None and not background_has_a_channel
        classes = layout.channels + shifted
        flat = layout.positionwise(labels)
        ignored = np.zeros(flat.shape, bool) if ignore_label is None else flat == ignore_label
        with np.errstate(invalid="ignore"):
            index = flat.astype(np.intp)
            wrong = ~(((index == flat) & (index >= 0) & (index < classes)) | ignored)
        if wrong.any():
            place = np.unravel_index(int(np.argmax(wrong)), labels.shape)
            valid = f"integral and in 0 to {classes - 1}"
            ignoring = "" if ignore_label is None else f", or ignore_label ({ignore_label})"
            raise LabelError(
                f"labels (bottom[1]) must be {valid}{ignoring}, but the label at {tuple(int(at) for at in place)} is"
                f" {labels[place]} (scores {layout.shape}, axis {layout.axis})"
            )
        index[ignored] = 0
        background = np.zeros(flat.shape, bool) if background_label is None else index == background_label
        self.layout = layout
        self.ignored = ignored
        self.counted = ~ignored
        self.foreground = self.counted & ~background
        self.named = self.foreground if shifted else self.counted
        self.channel = index - (index > background_label) if shifted else index
        if shifted:
            self.channel[~self.named] = 0

    def of_class(self, values):
        """Each position's entry of ``values`` (channels x 1, or None for ones), as float64."""
        return np.ones(self.channel.shape) if values is None else values[:, 0].astype(np.float64)[self.channel]

    def count(self, mode, class_weight, weights):
        """What the normalization mode counts, in positions; ``weights`` is outer x inner or None."""
        if mode == "VALID":
            return np.count_nonzero(self.counted)
        if mode == "POSITIVES":
            return np.count_nonzero(self.foreground)
        if mode == "WEIGHT":
            weight = self.of_class(class_weight) * self.named
            return float((weight if weights is None else weight * weights).sum())
        return self.layout.positions if mode == "FULL" else self.layout.outer


def read_dense(labels, layout, block, dtype, ignore_label, high=math.inf):
    """A block of dense targets with 0 at the elements to be ignored, and the mask of those (None: none are).

    The elements equal to ``ignore_label`` are ignored; the others must be finite, 0 or more, at most ``high``.
    """
    rows, columns = block
    values = layout.channelwise(labels)[rows, :, columns]
    ignored = None
    if ignore_label is not None:
        ignored = values == ignore_label
        ignored = ignored if ignored.any() else None
    if ignored is not None:
        values = np.where(ignored, values.dtype.type(0), values)
    place = _first_outside(values, 0, high)
    if place is not None:
        place = np.add(place, (rows.start, 0, columns.start))
        flat = np.ravel_multi_index(place, (layout.outer, layout.channels, layout.inner))
        within = "finite and 0 or more" if high == math.inf else f"finite and in 0 to {high}"
        ignoring = "" if ignore_label is None else f", or ignore_label ({ignore_label})"
        raise LabelError(
            f"labels (bottom[1]) must be {within}{ignoring}, but the value at"
            f" {tuple(int(at) for at in np.unravel_index(flat, labels.shape))} is {labels.flat[flat]}"
        )
    return values.astype(dtype, copy=False), ignored
