"""Inputs drawn where none are given: labels, regions and boxes that are valid for every layer that reads them, and
normal data.

What a bottom holds, its layer says: a Caffe type in its declaration (``labels``, ``probabilities``), by the range of
its labels and by ``examples`` when it is built, a plug-in layer by ``holds(index)``. Bottoms of other layers hold any
data. Where a layer reads an input through others that move elements about (Slice, Reshape, Concat, …), what it needs is
put where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from caffe_tools.net.keys import IN, TOP_DIFF, split_key
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.origins import Origins
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.standard.examples import Example, image_sizes
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, DISTRIBUTION, PROBABILITIES, REAL


def draw_inputs(net: Net, fed: Collection[str], seed: int = 0, zeros: bool = False) -> None:
    """Fill what is not ``fed``: labels with labels, other inputs from a normal distribution; with ``zeros`` also what
    the prototxt fills with zeros once.

    So are the diffs from which the backward of a net without a loss starts; if some of them are fed, the others are 0.
    """
    random = np.random.default_rng(seed)
    names = [name for name in [*net.inputs, *(_filled_with_zeros(net) if zeros else ())] if IN.key(name) not in fed]
    demands = _demands(net) if names else []
    for name in names:
        blob = net.blobs[name]
        blob.data[...] = _draw(net, name, demands, random)
    if not net.has_loss and not any(split_key(key)[0] == TOP_DIFF for key in fed):
        for name in net.outputs:
            net.blobs[name].diff[...] = random.normal(size=net.blobs[name].shape)


def _filled_with_zeros(net: Net) -> list[str]:
    sources = net.sources.items()
    return [name for name, source in sources if source.is_filled_once and source.filler and not source.filler.value]


@dataclass(frozen=True)
class Reader:
    """A layer that reads a blob as bottom ``index``, beside a first bottom of the shape ``scores``."""

    layer: EmbeddedLayer
    index: int
    scores: tuple[int, ...]

    @property
    def holds(self) -> str | None:
        """What the blob must hold for it; None where any number will do, or examples are drawn."""
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

    @property
    def liberty(self) -> float:
        """The less, the fewer numbers will do."""
        return self.labels or (1e9 if self.index in _examples(self.layer) else math.inf)

    def draw(self, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        """What the blob may hold for this layer."""
        example = _examples(self.layer).get(self.index)
        if example:
            return example(shape, random)
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


@dataclass(eq=False)
class _Demand:
    """What a reader needs at the places ``origins`` of the inputs."""

    reader: Reader
    origins: np.ndarray
    drawn: np.ndarray | None = None

    def values(self, random: np.random.Generator) -> np.ndarray:
        """Drawn once for all the inputs that it comes from."""
        if self.drawn is None:
            self.drawn = self.reader.draw(self.origins.shape, random)
        return self.drawn


def _examples(layer: EmbeddedLayer) -> dict[int, Example]:
    return layer.layer.examples if isinstance(layer, StandardLayer) else {}


def _demands(net: Net) -> list[_Demand]:
    """Of the layers that read numbers of inputs, for which not any will do."""
    origins = Origins(net)
    found = []
    for place, placed in enumerate(net.placed):
        if isinstance(placed.layer, SourceLayer):
            continue
        for index in range(len(placed.bottoms)):
            if placed.layer.holds(index) or index in _examples(placed.layer):
                reader = Reader(placed.layer, index, placed.bottoms[0].shape)
                found.append(_Demand(reader, origins.of_bottom(place, index)))
    return found


def _draw(net: Net, name: str, demands: Sequence[_Demand], random: np.random.Generator) -> np.ndarray:
    """What is valid for all readers of an input; of those to whom the same will do, the first says what."""
    shape = net.blobs[name].shape
    drawn, is_drawn = np.zeros(math.prod(shape)), np.zeros(math.prod(shape), bool)
    for demand in sorted(demands, key=lambda demand: demand.reader.liberty):
        places, mine = Origins.within(net, name, demand.origins)
        new = ~is_drawn[places]
        if new.any():
            drawn[places[new]] = demand.values(random).reshape(-1)[mine][new]
            is_drawn[places] = True
    if not is_drawn.any():
        drawn = _by_name(net, name, random).reshape(-1)
    elif not is_drawn.all():
        drawn[~is_drawn] = random.normal(size=int(np.sum(~is_drawn)))
    return drawn.reshape(shape)


def _by_name(net: Net, name: str, random: np.random.Generator) -> np.ndarray:
    """Normal data; but what Faster R-CNN's Python layers call im_info is the size of the images."""
    shape = net.blobs[name].shape
    images = [net.blobs[other].shape for other in net.inputs if len(net.blobs[other].shape) == 4]
    is_read = any(isinstance(p.layer, PythonLayer) and name in p.spec.bottoms for p in net.placed)
    if name == "im_info" and is_read and len(shape) == 2 and images:
        return image_sizes(images[0], 1)(shape, random)
    return random.normal(size=shape)
