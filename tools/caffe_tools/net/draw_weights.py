"""Learnable blobs drawn where a prototxt says nothing of them, so that a comparison of two runs says something.

Caffe's default filler is the constant 0, and stored statistics begin with 0: a net as it is deployed gives zeros, or
divides by √ε, until it gets its weights. Here each layer in turn gets numbers that make its top about as large as 1.
What a prototxt asks for (a gaussian filler, a constant other than 0) stays, unless the top vanishes or explodes.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.standard.layer import FACTOR, MEAN, SCALE, VARIANCE

OWN_SIZE, FILLERS_SIZE = (0.2, 5.0), (1e-3, 1e3)
"""How large a top may be, as its root mean square, with weights drawn here and with those of the prototxt's fillers."""
BIAS = 0.3
"""How large a drawn bias is beside what it is added to."""


def draw_weights(net: Net, seed: int = 0) -> None:
    """Draw the learnable blobs that were neither loaded nor fed. The net's inputs must hold what they will hold."""
    last = max((place for place, placed in enumerate(net.placed) if _free(net, placed)), default=-1)
    random, state = np.random.default_rng([seed, 1]), net.random.bit_generator.state
    inputs = {name: net.blobs[name].data.copy() for name in net.sources}
    done: set[int] = set(net.given_weights)
    for placed in net.placed[: last + 1]:
        _LayerDraw(placed, done, random).run()
        done |= {blob.memory for blob in placed.layer.blobs}
    for name, data in inputs.items():
        net.blobs[name].data[...] = data
    net.random.bit_generator.state = state


def _free(net: Net, placed: PlacedLayer) -> bool:
    is_standard = isinstance(placed.layer, StandardLayer)
    return is_standard and any(blob.memory not in net.given_weights for blob in placed.layer.blobs)


class _LayerDraw:
    """Draws what is free of a layer, whose bottoms have been computed, and runs it forward."""

    def __init__(self, placed: PlacedLayer, given: set[int], random: np.random.Generator) -> None:
        self._placed, self._layer, self._random = placed, placed.layer, random
        self._free = [index for index, blob in enumerate(self._layer.blobs) if blob.memory not in given and blob.count]
        self._weights: list[int] = []
        """Blobs that may be made larger or smaller."""
        self._biases: list[int] = []
        self._limits = FILLERS_SIZE
        # forward writes into its bottoms where the layer works in place, and into statistics
        self._bottoms = [(bottom, bottom.data.copy()) for bottom in placed.bottoms if bottom in placed.tops]

    def run(self) -> None:
        if isinstance(self._layer, StandardLayer):
            for index in self._free:
                self._draw(index, self._layer)
        kept = [(blob, blob.data.copy()) for blob in self._placed.statistics.values()]
        states = dict(getattr(self._layer, "states", {}))
        self._forward()
        if self._weights:
            self._bring_to_size()
        if self._biases:
            for index in self._biases:
                blob = self._layer.blobs[index]
                blob.data[...] = BIAS * self._top_size() * self._random.normal(size=blob.shape)
            self._forward()
        for blob, data in kept:
            blob.data[...] = data
        if isinstance(self._layer, StandardLayer):
            self._layer.states = states

    def _draw(self, index: int, layer: StandardLayer) -> None:
        blob, filler = layer.blobs[index], layer.fillers[index]
        what = layer.layer.statistics.get(index)
        if what is not None:
            blob.data[...] = self._statistic(what, blob.shape)
        elif filler.type != "constant":
            self._weights.append(index)
        elif filler.value == 0 and (blob.data.ndim > 1 or not self._placed.bottoms):
            fan = math.prod(blob.shape[1:]) if self._placed.bottoms else 1
            blob.data[...] = self._random.normal(size=blob.shape) / (math.sqrt(fan) * self._bottom_size())
            self._weights.append(index)
            self._limits = OWN_SIZE
        elif filler.value == 0:
            blob.data[...] = 0
            self._biases.append(index)
        elif filler.value == 1 or "value" not in filler.given:  # a scale, a slope
            blob.data[...] = filler.value * self._random.uniform(0.5, 1.5, blob.shape)

    def _statistic(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """Mean and variance near those of the bottom, so that what is normalized stays so."""
        data = self._placed.bottoms[0].data.astype(np.float64)
        variance = float(data.var()) or 1.0
        if what == FACTOR:
            return np.ones(shape)
        if what == MEAN:
            return data.mean() + BIAS * math.sqrt(variance) * self._random.normal(size=shape)
        if what in (VARIANCE, SCALE):
            return (variance if what == VARIANCE else 1) * self._random.uniform(0.5, 1.5, shape)
        return BIAS * self._random.normal(size=shape)

    def _bring_to_size(self) -> None:
        """Make the weights larger or smaller until the top is neither too small nor too large."""
        least, most = self._limits
        for _ in range(4):
            size = self._top_size()
            if size == 0 or least <= size <= most:
                return
            factor = 1 / size if math.isfinite(size) else 1e-6
            for index in self._weights:
                self._layer.blobs[index].data[...] *= factor
            self._forward()

    def _forward(self) -> None:
        for bottom, data in self._bottoms:
            bottom.data[...] = data
        self._placed.forward()

    def _bottom_size(self) -> float:
        return (_size(self._placed.bottoms[0].data) if self._placed.bottoms else 1.0) or 1.0

    def _top_size(self) -> float:
        return _size(self._placed.tops[0].data) if self._placed.tops else 1.0


def _size(array: np.ndarray) -> float:
    """The root mean square."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(np.mean(np.square(array, dtype=np.float64))) if array.size else 0.0
