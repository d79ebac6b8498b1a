"""Losses with one term per position: targets, the sum over positions and its normalisation.

The softmax losses and the cross-entropy of probabilities differ only in two small functions each:

``index_block(x, label, coefficient, gradient, place, probabilities, workspace) -> losses``
    the loss of a position is l(x, label), where ``label`` (n x s) is the channel; ``place()`` says where the labelled
    elements are in the memory of ``gradient``: a view of one dimension, and places in it;
``dense_block(x, target, coefficient, gradient, probabilities, workspace) -> losses``
    the loss of a position is l(x, target), where ``target`` (a :class:`BlockTarget`) weighs each channel.

``x`` is an n x C x s block of scores, the losses are n x s, float64. Both write coefficient x dl/dx to ``gradient``,
and the probabilities where those are not None; ``coefficient`` is n x s or a number.
"""

from __future__ import annotations

import math
from collections import namedtuple
from functools import partial

import numpy as np

from caffe_layers import engine, normalization
from caffe_layers.blocks import flat_index, run
from caffe_layers.loss import AXIS, CLASS_WEIGHT, ignore_label
from caffe_layers.params import BELOW_ONE, INTEGER_FROM_0, Parameter, choice, or_null
from caffe_layers.softmax import sum_over_channels
from caffe_layers.targets import DenseTargets, Labels, per_class, places_of_few, read_weights

PARAMETERS = (
    AXIS,
    Parameter("target", choice("index", "distribution", "multi_label"), "index", "what the labels are"),
    ignore_label("positions (index) or elements of the target"),
    *normalization.parameters("VALID"),
    CLASS_WEIGHT,
    Parameter("label_smoothing", BELOW_ONE, 0.0, "eps: the target t becomes (1 - eps) t + eps / C"),
    Parameter("background_label", or_null(INTEGER_FROM_0), 0, "the class that POSITIVES does not count; null: none"),
)


def evaluate(params, arrays, workspace, index_block, dense_block, class_factor=None, compiled=None):
    """The loss, as ``LossLayer.evaluate``.

    ``class_factor`` (C numbers, or None) multiplies the loss of each label as class_weight does, but does not count for
    WEIGHT. ``compiled``, where it is given, has compiled functions ``index_block`` and ``dense_block``, which do blocks
    of ordinary numbers: they give the sum of their losses, or what is not finite. They write no probabilities.
    """
    if arrays.gradient is None:
        compiled = None
    layout, mode = arrays.layout, normalization.mode(params, "VALID")
    target: _Index | _Dense
    if params.get("target", "index") == "index":
        target = _Index(params, arrays, index_block, dense_block, class_factor, compiled)
    else:
        target = _Dense(params, arrays, dense_block, compiled)
    factor = normalization.factor(mode, _count(mode, layout, target, workspace))

    def work(block, own):
        if compiled is not None:
            total = target.evaluate_compiled(block, factor, own)
            if math.isfinite(total):
                if arrays.probabilities is not None:
                    fast = engine.compiled("caffe_layers.compiled.activations", arrays.scores.dtype)
                    fast.softmax_block(arrays.scores, block, arrays.probabilities)
                return total
        return target.evaluate(block, factor, own)

    return float(factor) * sum(run(layout, workspace, work, compiled=compiled is not None))


def _count(mode, layout, target, workspace):
    """What the mode of normalisation counts."""
    if mode == "FULL":
        return layout.positions
    return layout.outer if mode in ("BATCH_SIZE", "NONE") else target.count(mode, workspace)


class BlockTarget(namedtuple("BlockTarget", "values places")):
    """What weighs the channels of a block: n x C x s values. Where few are not 0, ``places`` has their flat places."""

    def number(self, t):
        """How many of each position are not 0 in t, which the values are weighted from: n x s."""
        return np.add.reduce(t != 0, axis=1, dtype=np.float64) if self.places is None else self._sums(None)

    def mass(self):
        """sum_c t_c, n x s"""
        return sum_over_channels(self.values) if self.places is None else self._sums(self._few(self.values))

    def times(self, x):
        """sum_c t_c x_c, n x s"""
        if self.places is None:
            return sum_over_channels(self.values, x)
        return self._sums(self._few(self.values) * self._few(x).astype(np.float64))

    def write_gradient(self, e, share, coefficient):
        """Make of exponentials the gradient coefficient (e share - t_c); share and coefficient are n x s."""
        if self.places is None:
            e *= share[:, None].astype(e.dtype)
            e -= self.values
            e *= coefficient[:, None].astype(e.dtype)
            return
        e *= (share * coefficient)[:, None].astype(e.dtype)
        few = self._few(self.values) * coefficient.reshape(-1).take(self._positions())
        flat, index = flat_index(e, self.places)
        flat[index] -= few.astype(e.dtype)

    def _few(self, block):
        flat, index = flat_index(block, self.places)
        return flat[index]

    def _positions(self):
        _, channels, s = self.values.shape
        return self.places // channels if s == 1 else self.places // (channels * s) * s + self.places % s

    def _sums(self, few):
        n, _, s = self.values.shape
        return np.bincount(self._positions(), few, n * s).reshape(n, s)


def _weighed(losses, coefficient, ignored, gradient):
    """The sum of the losses, to which ignored positions add nothing."""
    if isinstance(coefficient, float):
        return float(np.add.reduce(losses, axis=None)) * coefficient
    # Not by np.dot: its BLAS would use threads of its own.
    total = float(np.einsum("n,n->", losses.reshape(-1), coefficient.reshape(-1)))
    if ignored is not None and not np.isfinite(total):
        # Their coefficient is 0, but if their scores are NaN then so is what is multiplied with it.
        losses[ignored] = 0
        gradient.transpose(0, 2, 1)[ignored] = 0
        total = float(np.einsum("n,n->", losses.reshape(-1), coefficient.reshape(-1)))
    return total


class _Index:
    """Labels, one per position."""

    def __init__(self, params, arrays, index_block, dense_block, class_factor, compiled):
        layout = arrays.layout
        self.compiled = compiled
        self.arrays, self.index_block, self.dense_block = arrays, index_block, dense_block
        self.labels = Labels(arrays.labels, layout, params["ignore_label"], params["background_label"], True)
        self.weights = None if arrays.weights is None else layout.positionwise(read_weights(arrays.weights))
        self.smoothing = params.get("label_smoothing", 0.0)
        self.class_weight = params["class_weight"]
        self.of_label = class_factor
        if self.class_weight is not None and not self.smoothing:
            weight = np.array(self.class_weight)
            self.of_label = weight if class_factor is None else weight * class_factor

    def evaluate(self, block, factor, workspace):
        arrays = self.arrays
        label, ignored = self.labels.read(block)
        coefficient = self._weight(block, label, ignored, self.of_label)
        x, p = block.of(arrays.scores), block.of(arrays.probabilities)
        gradient = arrays.gradient_memory(block, workspace)
        if self.smoothing:
            target = self._smoothed(label, x.dtype, workspace)
            losses = self.dense_block(x, BlockTarget(target, None), coefficient * factor, gradient, p, workspace)
        else:
            place = partial(arrays.place, block, gradient, label)
            losses = self.index_block(x, label, coefficient * factor, gradient, place, p, workspace)
        return _weighed(losses, coefficient, ignored, gradient)

    def evaluate_compiled(self, block, factor, workspace):
        if self.smoothing:
            label, ignored = self.labels.read(block)
            coefficient = self._weight(block, label, ignored, self.of_label)
            target = self._smoothed(label, self.arrays.scores.dtype, workspace)
            return self.compiled.dense_block(self.arrays, block, target, (0, 0), coefficient, factor, False)
        compiled_labels = engine.compiled("caffe_layers.compiled.labels", self.arrays.scores.dtype)
        label, coefficient = self.labels.read_compiled(block, compiled_labels, self.of_label, workspace)
        if self.weights is not None:
            np.multiply(coefficient, block.of_positions(self.weights), out=coefficient, casting="same_kind")
        return self.compiled.index_block(self.arrays, block, label, coefficient, factor)

    def _weight(self, block, label, ignored, of_label):
        """The product of each position's weight, its label's entry of ``of_label``, and 0 where it is ignored."""
        weight = 1.0 if of_label is None else of_label.take(label)
        if ignored is not None:
            weight = (~ignored).astype(np.float64) if of_label is None else weight * ~ignored
        return weight if self.weights is None else weight * block.of_positions(self.weights).astype(np.float64)

    def _smoothed(self, label, dtype, workspace):
        n, s = label.shape
        channels = self.arrays.layout.channels
        target = workspace.array("target", (n, channels, s), dtype)
        target[...] = self.smoothing / channels
        np.put_along_axis(target, label[:, None], 1 - self.smoothing + self.smoothing / channels, axis=1)
        if self.class_weight is not None:
            target *= np.array(self.class_weight, dtype)[:, None]
        return target

    def count(self, mode, workspace):
        if mode == "VALID":
            return self.labels.number_counted(workspace)
        if mode == "POSITIVES":
            return self.labels.number_of_foreground(workspace)
        class_weight = None if self.class_weight is None else np.array(self.class_weight)

        def weight(block, _):
            label, ignored = self.labels.read(block)
            return float(np.sum(self._weight(block, label, ignored, class_weight) * np.ones(label.shape)))

        return sum(run(self.arrays.layout, workspace, weight))


class _Dense:
    """Targets of the scores' shape: distributions, or multi-label with M non-zero entries, which weigh 1 / M each."""

    def __init__(self, params, arrays, dense_block, compiled):
        self.params, self.arrays, self.dense_block = params, arrays, dense_block
        self.compiled = compiled
        dtype = arrays.scores.dtype
        self.targets = DenseTargets(arrays.labels, arrays.layout, dtype, params["ignore_label"])
        self.class_weight = per_class("class_weight", params["class_weight"], arrays.layout.channels, dtype)
        self.weights = None if arrays.weights is None else arrays.layout.positionwise(read_weights(arrays.weights))

    def evaluate(self, block, factor, workspace):
        arrays = self.arrays
        target, coefficient, ignored = self._target(block, workspace)
        gradient = arrays.gradient_memory(block, workspace)
        x, p = block.of(arrays.scores), block.of(arrays.probabilities)
        losses = self.dense_block(x, target, coefficient * factor, gradient, p, workspace)
        return _weighed(losses, coefficient, ignored, gradient)

    def evaluate_compiled(self, block, factor, workspace):
        if not self._plain():
            target, coefficient, _ = self._target(block, workspace)
            values = np.ascontiguousarray(target.values)
            return self.compiled.dense_block(self.arrays, block, values, (0, 0), coefficient, factor, False)
        weights = 1.0 if self.weights is None else block.of_positions(self.weights)
        first = block.rows.start, block.columns.start
        by_number = self.params["target"] == "multi_label"
        return self.compiled.dense_block(self.arrays, block, self.targets.given, first, weights, factor, by_number)

    def _target(self, block, workspace):
        """(the :class:`BlockTarget`, smoothed, the positions' coefficient, the ignored positions or None)"""
        t, target, number, coefficient, ignored_elements, ignored = self._read(block, workspace)
        if self.params["label_smoothing"]:
            target = BlockTarget(self._smoothed(t, number, ignored_elements), None)
        return target, coefficient, ignored

    def _plain(self):
        """Whether the targets are used as they are given."""
        params = self.params
        changed = params["label_smoothing"] or params["class_weight"] or params["ignore_label"] is not None
        return not changed and self.arrays.labels.dtype == self.arrays.scores.dtype

    def _read(self, block, workspace):
        """(t, t x class weight, M or None, the positions' coefficient, the ignored elements and positions or None)

        The second is a :class:`BlockTarget`.
        """
        t = self.targets.unchecked(block) if self.params["ignore_label"] is None else None
        places = None if t is None else places_of_few(t, workspace)
        ignored_elements = ignored = None
        if places is not None:
            self.targets.check(block, places)
        else:
            t, ignored_elements = self.targets.read(block)
            ignored = None if ignored_elements is None else ignored_elements.all(axis=1)
        coefficient = 1.0 if self.weights is None else block.of_positions(self.weights).astype(np.float64)
        target = BlockTarget(t if self.class_weight is None else t * self.class_weight, places)
        number = None
        if self.params["target"] == "multi_label":
            number = target.number(t)
            coefficient = coefficient / np.maximum(number, 1)
        return t, target, number, coefficient, ignored_elements, ignored

    def _smoothed(self, t, number, ignored_elements):
        epsilon = self.params["label_smoothing"]
        # For multi-label it is t / M that is smoothed; the 1 / M is in the coefficient.
        uniform = epsilon / t.shape[1] * (1.0 if number is None else number[:, None])
        smooth = (t * (1 - epsilon) + uniform).astype(t.dtype)
        if ignored_elements is not None:
            smooth[ignored_elements] = 0
        if self.class_weight is not None:
            smooth *= self.class_weight
        return smooth

    def count(self, mode, workspace):
        if mode == "VALID" and self.params["ignore_label"] is None:
            return self.arrays.layout.positions
        return sum(run(self.arrays.layout, workspace, lambda block, own: self._count(mode, block, own)))

    def _count(self, mode, block, workspace):
        t, target, _, coefficient, _, ignored = self._read(block, workspace)
        n, _, s = t.shape
        if mode == "VALID":
            return n * s - (0 if ignored is None else np.count_nonzero(ignored))
        if mode == "WEIGHT":
            return float((target.mass() * coefficient).sum())
        if self.params["target"] == "multi_label":
            return np.count_nonzero(t)
        foreground = t > 0
        if self.params["background_label"] is not None:
            foreground[:, self.params["background_label"]] = False
        return np.count_nonzero(foreground.any(axis=1))
