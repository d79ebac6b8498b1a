"""What a loss is to learn: labels, targets and weights, checked and laid out like the scores.

Scores have C channels on ``axis``; the dims before it are the outer ones, those after it the inner ones, and one
*position* is one place of both. Every array is seen as outer x C x inner, or outer x inner where it holds one value per
position.
"""

from __future__ import annotations

import math
from collections import namedtuple
from functools import cached_property, lru_cache

import numpy as np

from caffe_layers.blocks import Whole, flat_index, run
from caffe_layers.contract import LabelError, ParameterError, ShapeError

FEW, SMALL = 8, 4096
"""Up to one in so many is few, of more than these."""


def are_few(number, size):
    return size > SMALL and number * FEW <= size


def places_of_few(values, workspace):
    """The flat places of what is not 0 in a block, or None where it is not few."""
    if values.size <= SMALL:
        return None
    mask = np.not_equal(values, 0, out=workspace.array("not 0", values.shape, np.dtype(bool)))
    return np.flatnonzero(mask) if are_few(np.count_nonzero(mask), values.size) else None


def places_of(channel, channels):
    """The flat places of these channels (n x s) in a block of n x ``channels`` x s."""
    n, s = channel.shape
    if s == 1:
        return channel + _starts(n, channels)
    return (_starts(n, channels) + channel) * s + np.arange(s)


@lru_cache(maxsize=4)
def _starts(number, step):
    """Kept, as for small calls it takes longer to make than to use."""
    starts = np.arange(0, number * step, step)[:, None]
    starts.flags.writeable = False
    return starts


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

    @cached_property
    def whole(self):
        """The block that is all there is."""
        return Whole(slice(0, self.outer), slice(0, self.inner))

    @property
    def positions(self):
        return self.outer * self.inner

    def channelwise(self, array):
        return array.reshape(self.outer, self.channels, self.inner)

    def positionwise(self, array):
        return array.reshape(self.outer, self.inner)

    def places(self, block, channel):
        """Where the elements of these channels (n x s) of a block are in memory, counted in elements."""
        rows, columns = block
        first = rows.start * self.channels * self.inner
        if columns.stop - columns.start == self.inner:
            places = places_of(channel, self.channels)
            return places + first if first else places
        row = first + self.inner * _starts(rows.stop - rows.start, self.channels)
        return channel * self.inner + (row + np.arange(columns.start, columns.stop))


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


def _largest(values):
    # The reduction is faster, but takes longer to start.
    return values.item(values.argmax()) if values.size <= SMALL else np.maximum.reduce(values, axis=None)


class Labels:
    """Labels, one per position, as outer x inner: read block by block, and counted."""

    def __init__(self, labels, layout, ignore_label, background_label, background_has_a_channel):
        # A background without a channel is one more valid label, and the labels above it move down by one.
        self._shifted = background_label is not None and not background_has_a_channel
        self._labels, self._layout = labels, layout
        self._flat = layout.positionwise(labels)
        self._ignore_label, self._background_label = ignore_label, background_label
        self._classes = layout.channels + self._shifted

    def read(self, block):
        """(label, ignored) of a block: integers, 0 where they are ignored, and the mask of those (None: none are).

        Raises LabelError where a label is neither valid nor ``ignore_label``.
        """
        given = block.of_positions(self._flat)
        ignored = None
        if self._ignore_label is not None:
            ignored = given == self._ignore_label
            ignored = ignored if ignored.any() else None
        label = given.astype(np.intp, copy=ignored is not None)
        if ignored is not None:
            np.copyto(label, 0, where=ignored)
        # As unsigned numbers, those below 0 are above all classes.
        valid = label.size == 0 or _largest(label.view(np.uintp)) < self._classes
        if not valid or (given.dtype.kind == "f" and not np.logical_and.reduce(np.floor(given) == given, axis=None)):
            self._refuse()
        return label, ignored

    def read_compiled(self, block, compiled_labels, of_label, workspace):
        """(label, coefficient) of a block, as compiled functions want them: see compiled/labels.py."""
        shape = block.of_positions(self._flat).shape
        label = workspace.array("label", shape, np.dtype(np.int32))
        coefficient = workspace.array("coefficient", shape, np.dtype(np.float32))
        given, first = self._flat, (block.rows.start, block.columns.start)
        if given.dtype.char not in compiled_labels.KINDS or not given.dtype.isnative:
            given, first = block.of_positions(given).astype(np.float64), (0, 0)
        if not compiled_labels.read(given, first, self._ignore_label, self._classes, of_label, label, coefficient):
            self._refuse()
        return label, coefficient

    def channels(self, label, ignored):
        """Of what :meth:`read` gives: the channel of each label, 0 where it has none, and the mask of those that do."""
        if not self._shifted:
            return label, None if ignored is None else ~ignored
        named = label != self._background_label
        if ignored is not None:
            named &= ~ignored
        return (label - (label > self._background_label)) * named, named

    def _refuse(self):
        flat, ignore = self._flat, self._ignore_label
        with np.errstate(invalid="ignore"):
            label = flat.astype(np.intp)
        wrong = ~((label == flat) & (label >= 0) & (label < self._classes))
        if ignore is not None:
            wrong &= flat != ignore
        place = np.unravel_index(int(np.argmax(wrong)), self._labels.shape)
        ignoring = "" if ignore is None else f", or ignore_label ({ignore})"
        raise LabelError(
            f"labels (bottom[1]) must be integral and in 0 to {self._classes - 1}{ignoring}, but the label at"
            f" {tuple(int(at) for at in place)} is {self._labels[place]}"
            f" (scores {self._layout.shape}, axis {self._layout.axis})"
        )

    def number_counted(self, workspace):
        """How many positions are not ignored."""
        return self._layout.positions - self._number_of(self._ignore_label, workspace)

    def number_of_foreground(self, workspace):
        """How many of those are not of the background."""
        background = self._background_label
        others = 0 if background == self._ignore_label else self._number_of(background, workspace)
        return self.number_counted(workspace) - others

    def _number_of(self, value, workspace):
        if value is None:
            return 0
        parts = run(self._layout, workspace, lambda block, _: np.count_nonzero(block.of_positions(self._flat) == value))
        return sum(parts)


class DenseTargets:
    """Targets, one per element, as outer x C x inner: read block by block. They are finite and in 0 to ``high``."""

    def __init__(self, targets, layout, dtype, ignore_label, high=math.inf):
        self._targets, self._layout, self._dtype, self._high = targets, layout, dtype, high
        self._flat = layout.channelwise(targets)
        self._ignore_label = ignore_label

    def read(self, block):
        """A block of targets with 0 at the elements to be ignored, and the mask of those (None: none are).

        The elements equal to ``ignore_label`` are ignored. Raises LabelError where another one is out of range.
        """
        values = block.of(self._flat)
        ignored = None
        if self._ignore_label is not None:
            ignored = values == self._ignore_label
            ignored = ignored if ignored.any() else None
        if ignored is not None:
            values = np.where(ignored, values.dtype.type(0), values)
        place = _first_outside(values, 0, self._high)
        if place is not None:
            self._refuse(np.add(place, (block.rows.start, 0, block.columns.start)))
        return values.astype(self._dtype, copy=False), ignored

    @property
    def given(self):
        """All targets as they are."""
        return self._flat

    def unchecked(self, block):
        """A block of targets as they are, or None where they are of another dtype than wanted."""
        return block.of(self._flat) if self._flat.dtype == self._dtype else None

    def check(self, block, places):
        """Raise LabelError where one of those at these flat places of the block is out of range."""
        flat, index = flat_index(block.of(self._flat), places)
        if _first_outside(flat[index], 0, self._high) is not None:
            self.read(block)

    def _refuse(self, place):
        flat = np.ravel_multi_index(place, self._flat.shape)
        within = "finite and 0 or more" if self._high == math.inf else f"finite and in 0 to {self._high}"
        ignoring = "" if self._ignore_label is None else f", or ignore_label ({self._ignore_label})"
        raise LabelError(
            f"labels (bottom[1]) must be {within}{ignoring}, but the value at"
            f" {tuple(int(at) for at in np.unravel_index(flat, self._targets.shape))} is {self._targets.flat[flat]}"
        )
