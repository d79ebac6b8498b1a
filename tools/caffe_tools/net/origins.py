"""Where in a net's inputs the elements of a bottom come from, through layers that do no more than move them."""

from __future__ import annotations

import numpy as np

from caffe_tools.net.blob import Blob
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.results import Result, Results
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer

HALF = 2**20
"""float32 holds whole numbers up to 2^24, so places are moved in two halves."""


class Origins:
    """Places count through all inputs, one behind the other, from 1 on; 0 is an element that is computed."""

    def __init__(self, net: Net) -> None:
        self._net, self._results = net, Results(net)
        self._known: dict[int, list[np.ndarray]] = {}

    def of_bottom(self, place: int, index: int) -> np.ndarray:
        """The places of the elements that the layer at ``place`` reads as bottom ``index``."""
        return self._of(self._results.read[place][index])

    @staticmethod
    def within(net: Net, name: str, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which elements of ``origins`` come from the input ``name``: their places in it, and in the array."""
        first = _first_places(net)[name]
        flat = origins.reshape(-1) - first
        mine = np.flatnonzero((flat >= 0) & (flat < net.blobs[name].count))
        return flat[mine], mine

    def _of(self, result: Result) -> np.ndarray:
        place, index = self._results.makers[result]
        if place not in self._known:
            self._known[place] = self._tops(place)
        return self._known[place][index]

    def _tops(self, place: int) -> list[np.ndarray]:
        placed = self._net.placed[place]
        if isinstance(placed.layer, SourceLayer):
            first = _first_places(self._net)
            return [
                first[name] + np.arange(top.count, dtype=np.int64).reshape(top.shape)
                for name, top in zip(placed.spec.tops, placed.tops, strict=True)
            ]
        if isinstance(placed.layer, StandardLayer) and placed.layer.kind.moves:
            bottoms = [self._of(result) for result in self._results.read[place]]
            if any(bottom.any() for bottom in bottoms):
                return _moved(placed, bottoms)
        return [np.zeros(top.shape, np.int64) for top in placed.tops]


def _first_places(net: Net) -> dict[str, int]:
    first, count = {}, 1
    for name in net.sources:
        first[name] = count
        count += net.blobs[name].count
    return first


def _moved(placed: PlacedLayer, bottoms: list[np.ndarray]) -> list[np.ndarray]:
    """The layer's tops, run on places."""
    assert isinstance(placed.layer, StandardLayer)
    halves = []
    for half in (lambda places: places // HALF, lambda places: places % HALF):
        blobs, tops = [Blob(bottom.shape) for bottom in bottoms], [Blob(top.shape) for top in placed.tops]
        for blob, bottom in zip(blobs, bottoms, strict=True):
            blob.data[...] = half(bottom)
        placed.layer.reshape(blobs, tops)
        placed.layer.repeat(blobs, tops)
        halves.append([top.data.astype(np.int64) for top in tops])
    return [high * HALF + low for high, low in zip(*halves, strict=True)]
