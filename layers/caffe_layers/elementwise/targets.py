"""Targets of the losses with one term per element, read block by block, with what they weigh."""

from __future__ import annotations

import numpy as np

from caffe_layers.blocks import flat_index, run
from caffe_layers.targets import DenseTargets, Labels, are_few, per_class, places_of, places_of_few, read_weights

MANY = "many"
"""What stands for the places of the ones among targets that are 0 or 1, where it would take too long to list them."""


class IndexTarget:
    """Labels, one per position: t is 1 in the channel that the label names and 0 in the others."""

    def __init__(self, params, arrays, dtype):
        self.layout, self.dtype = arrays.layout, dtype
        self.labels = Labels(arrays.labels, self.layout, params["ignore_label"], params["background_label"], False)
        self.class_weight = per_class("class_weight", params["class_weight"], self.layout.channels, self.dtype)
        self.weights = None if arrays.weights is None else self.layout.positionwise(read_weights(arrays.weights))
        self.no, self.yes = params["label_smoothing"] / 2, 1 - params["label_smoothing"] / 2

    def seems_yes_or_no(self):
        return self.no == 0

    def read(self, block, workspace):
        """(t, the :func:`_yeses` of it, the mask of ignored elements or None)"""
        label, ignored = self.labels.read(block)
        channel, named = self.labels.channels(label, ignored)
        n, s = label.shape
        t = workspace.array("target", (n, self.layout.channels, s), self.dtype)
        t[...] = self.no
        places = places_of(channel, self.layout.channels)
        places = places.reshape(-1) if named is None else places[named]
        t.reshape(-1)[places] = self.yes
        yes = None if self.no else places if are_few(places.size, t.size) else MANY
        return t, yes, None if ignored is None else ignored[:, None]

    def unchecked(self, block, workspace):
        """(t, the mask of ignored elements or None)"""
        t, _, ignored = self.read(block, workspace)
        return t, ignored

    def weights_of(self, block):
        return None if self.weights is None else block.of_positions(self.weights)[:, None].astype(self.dtype)

    def count(self, mode, workspace):
        if mode == "VALID":
            return self.labels.number_counted(workspace) * self.layout.channels
        if mode == "POSITIVES":
            return self.labels.number_of_foreground(workspace)
        class_weight = np.ones(self.layout.channels) if self.class_weight is None else self.class_weight[:, 0]

        def weight(block, _):
            label, ignored = self.labels.read(block)
            channel, named = self.labels.channels(label, ignored)
            weight = class_weight.astype(np.float64).take(channel)
            if named is not None:
                weight *= named
            return float(product_of(weight, None if self.weights is None else block.of_positions(self.weights)).sum())

        return sum(run(self.layout, workspace, weight))


class DenseTarget:
    """Targets in [0, 1], one per element."""

    def __init__(self, params, arrays, dtype):
        self.layout, self.dtype, self.params = arrays.layout, dtype, params
        self.targets = DenseTargets(arrays.labels, self.layout, self.dtype, params["ignore_label"], high=1)
        self.class_weight = per_class("class_weight", params["class_weight"], self.layout.channels, self.dtype)
        self.weights = None if arrays.weights is None else self._by_element(read_weights(arrays.weights))

    def _by_element(self, weights):
        """Weights as outer x C x inner, or outer x 1 x inner where there is one per position."""
        if weights.size == self.layout.positions:
            return self.layout.positionwise(weights)[:, None]
        return self.layout.channelwise(weights)

    def seems_yes_or_no(self):
        """What a few targets tell, which need not be so for all."""
        return not self.params["label_smoothing"] and _seems_yes_or_no(self.targets.given)

    def read(self, block, workspace):
        """(t, the :func:`_yeses` of it, the mask of ignored elements or None)"""
        epsilon = self.params["label_smoothing"]
        if self.params["ignore_label"] is None and not epsilon:
            t = self.targets.unchecked(block)
            if t is not None:
                yes = _yeses(t, workspace)
                return (self.targets.read(block)[0] if yes is None else t), yes, None
        t, ignored = self.targets.read(block)
        if epsilon:
            return t * t.dtype.type(1 - epsilon) + t.dtype.type(epsilon / 2), None, ignored
        return t, _yeses(t, workspace), ignored

    def unchecked(self, block, workspace):
        """(t, the mask of ignored elements or None); where nothing is done to t, its range has not been checked."""
        if self.params["ignore_label"] is None and not self.params["label_smoothing"]:
            t = self.targets.unchecked(block)
            if t is not None:
                return t, None
        t, _, ignored = self.read(block, workspace)
        return t, ignored

    def weights_of(self, block):
        return None if self.weights is None else block.of(self.weights).astype(self.dtype)

    def count(self, mode, workspace):
        if mode == "VALID" and self.params["ignore_label"] is None:
            return self.layout.positions * self.layout.channels

        def part(block, _):
            t, ignored = self.targets.read(block)
            if mode == "VALID":
                return t.size - (0 if ignored is None else np.count_nonzero(ignored))
            if mode == "POSITIVES":
                return np.count_nonzero(t != 0)
            return float(product_of(t, self.class_weight, self.weights_of(block)).sum(dtype=np.float64))

        return sum(run(self.layout, workspace, part))


def _yeses(t, workspace):
    """Where t, of which all others are 0, is 1: the places in the flat block, or MANY; None: it has other values."""
    if not _seems_yes_or_no(t):
        return None
    places = places_of_few(t, workspace)
    if places is None:
        mask = workspace.array("not 0", t.shape, np.dtype(bool))
        number = np.count_nonzero(np.not_equal(t, 0, out=mask))
        return MANY if np.count_nonzero(np.equal(t, 1, out=mask)) == number else None
    flat, index = flat_index(t, places)
    return places if (flat[index] == 1).all() else None


def _seems_yes_or_no(t):
    first = t[:1, :8, :8]
    return ((first == 0) | (first == 1)).all()


def product_of(*values):
    """The product of those that are not None."""
    result = None
    for value in values:
        if value is not None:
            result = value if result is None else result * value
    return result
