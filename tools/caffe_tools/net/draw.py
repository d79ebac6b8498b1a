"""Inputs drawn where none are given: labels that are valid for every layer that reads them, and normal data.

What a bottom holds, its layer says: a Caffe type in its declaration (``labels``, ``probabilities``) and by the range of
its labels when it is built, a plug-in layer by ``holds(index)``. Bottoms of other layers hold any data.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from caffe_tools.net.keys import IN, TOP_DIFF, split_key
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, DISTRIBUTION, PROBABILITIES, REAL


def draw_inputs(net: Net, fed: Collection[str], seed: int = 0) -> None:
    """Fill what is not ``fed``: labels with labels, other inputs from a normal distribution.

    So are the diffs from which the backward of a net without a loss starts; if some of them are fed, the others are 0.
    """
    random = np.random.default_rng(seed)
    for name in net.inputs:
        if IN.key(name) not in fed:
            blob = net.blobs[name]
            blob.data[...] = _draw(_readers(net, name), blob.shape, random)
    if not net.has_loss and not any(split_key(key)[0] == TOP_DIFF for key in fed):
        for name in net.outputs:
            net.blobs[name].diff[...] = random.normal(size=net.blobs[name].shape)


@dataclass(frozen=True)
class Reader:
    """A layer that reads a blob as bottom ``index``, beside a first bottom of the shape ``scores``."""

    layer: EmbeddedLayer
    index: int
    scores: tuple[int, ...]

    @property
    def holds(self) -> str | None:
        """What the blob must hold for it; None where any number will do."""
        return self.layer.holds(self.index)

    @property
    def axis(self) -> int:
        """The axis of the scores that counts classes, as far as the layer tells."""
        return getattr(getattr(self.layer, "instance", None), "params", {}).get("axis", 1)

    @property
    def labels(self) -> int | None:
        """How many labels there are, from 0 on; None where the blob holds no labels."""
        if self.holds != CLASS_INDEX:
            return 2 if self.holds == BINARY else None
        if isinstance(self.layer, StandardLayer) and self.index in self.layer.layer.label_ranges:
            return self.layer.layer.label_ranges[self.index][0]
        return self.scores[self.axis] if -len(self.scores) <= self.axis < len(self.scores) else 2

    def draw(self, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        """What the blob may hold for this layer."""
        if self.labels:
            return random.integers(0, self.labels, shape)
        if self.holds == DISTRIBUTION:
            weights = random.random(shape)
            return weights / weights.sum(axis=self.axis, keepdims=True)
        if self.holds == REAL:
            return random.random(shape)
        if self.holds == PROBABILITIES:
            return random.uniform(0.05, 1.0, shape)
        return random.normal(size=shape)


def _draw(readers: list[Reader], shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Labels that are valid for all readers, where some read labels; else what the first takes that says something."""
    chosen = [reader for reader in readers if reader.holds]
    if not chosen:
        return random.normal(size=shape)
    return min(chosen, key=lambda reader: reader.labels or math.inf).draw(shape, random)


def _readers(net: Net, blob: str) -> list[Reader]:
    """The layers that read ``blob``, directly or through a Split."""
    found: list[Reader] = []
    for placed in net.placed:
        for index, bottom in enumerate(placed.spec.bottoms):
            if bottom != blob or isinstance(placed.layer, SourceLayer):
                continue
            if placed.spec.is_inserted:
                for top in placed.spec.tops:
                    found += _readers(net, top)
            else:
                found.append(Reader(placed.layer, index, placed.bottoms[0].shape))
    return found
