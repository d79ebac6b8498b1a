"""A layer by itself: what it makes of the bottoms, and of the top diffs, that a side has.

Where a side lacks a value (Caffe keeps of a blob the last result alone), the layers between those that it has are run
one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caffe_tools.check.sides import Side
from caffe_tools.net.blob import Blob
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.results import Result, Results
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer

BENT_AT_ZERO = ("ReLU", "PReLU", "ELU")
"""The types whose top has the sign of its bottom, and whose slope changes at 0."""


@dataclass
class Forward:
    """tops in order, and what the layer leaves in its stored blobs, by their names."""

    tops: list[np.ndarray]
    stored: dict[str, np.ndarray]


@dataclass
class Backward:
    """The diffs of the bottoms (None where none is asked for) and of the learnable blobs, by their names."""

    bottoms: list[np.ndarray | None]
    learnable: dict[str, np.ndarray]


class ByItself:
    """The layers of ``net``, which has run, over the values of ``side``. ``stored`` are the stored blobs as they were
    before the run, for those that it changed."""

    def __init__(self, net: Net, results: Results, side: Side, stored: Mapping[str, np.ndarray]) -> None:
        self.net, self.results, self.side, self._stored = net, results, side, stored
        self._forward: dict[int, Forward] = {}
        self._backward: dict[int, Backward] = {}

    # The values of the side -----------------------------------------------------------------------------------------

    def data(self, result: Result) -> np.ndarray:
        result = self.results.original(result)
        if result in self.side.data:
            return self.side.data[result]
        place, index = self.results.makers[result]
        placed = self.net.placed[place]
        if isinstance(placed.layer, SourceLayer) or not placed.bottoms:
            return self.net.blobs[result.blob].data
        return self.forward(place).tops[index]

    def diff(self, result: Result) -> np.ndarray:
        return self.side.diffs[result] if result in self.side.diffs else self.diff_from_readers(result)

    def diff_from_readers(self, result: Result) -> np.ndarray:
        """The gradient by a result, from those by what its readers make of it."""
        found: np.ndarray | None = None
        for place, index in self.results.readers[result]:
            if self.results.propagates(place, index):
                diff = self.backward(place).bottoms[index]
                found = diff if found is None else found + diff
        return self._start(result) if found is None else found

    def _start(self, result: Result) -> np.ndarray:
        """The diff of a result that no layer propagates to: a loss's is its weight, an output's may be given."""
        place, index = self.results.makers[result]
        is_start = bool(self.net.placed[place].loss_weights[index]) or result.blob in self.net.outputs
        blob = self.net.blobs[result.blob]
        return blob.diff if is_start and self.results.last(result.blob) == result else np.zeros_like(blob.diff)

    # The layers over them -------------------------------------------------------------------------------------------

    def forward(self, place: int) -> Forward:
        if place not in self._forward:
            placed = self.net.placed[place]
            bottoms, tops = self._stand_ins(place)
            with_before = self._with_stored(placed)
            _run_forward(placed, bottoms, tops)
            stored = {name: blob.data.copy() for name, blob in placed.statistics.items()}
            for name, data in with_before.items():
                placed.learnable[name].data[...] = data
            self._forward[place] = Forward([top.data for top in tops], stored)
        return self._forward[place]

    def backward(self, place: int) -> Backward:
        if place not in self._backward:
            placed = self.net.placed[place]
            if placed.spec.is_inserted:
                diffs = [self.diff(top) for top in self.results.made[place]]
                self._backward[place] = Backward([sum(diffs[1:], diffs[0])], {})
            else:
                self._backward[place] = self._run_backward(place, [self.diff(top) for top in self.results.made[place]])
        return self._backward[place]

    def drop_forward(self, place: int) -> None:
        """Forget the tops computed at that place, unless the side lacks one."""
        if all(result in self.side.data for result in self.results.made[place]):
            self._forward.pop(place, None)

    def drop_backward(self, place: int) -> None:
        """Forget the bottom diffs computed at that place, unless the side lacks one."""
        if place in self._backward and all(result in self.side.diffs for result in self.results.read[place]):
            self._backward[place].bottoms = []

    def pull_back(self, place: int, top_diffs: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """What the layer makes of any top diffs at the side's bottoms."""
        return self._run_backward(place, top_diffs).bottoms

    def _run_backward(self, place: int, top_diffs: Sequence[np.ndarray]) -> Backward:
        placed = self.net.placed[place]
        bottoms, tops = self._stand_ins(place, True)
        before = self._with_stored(placed)
        if isinstance(placed.layer, PythonLayer):
            _run_forward(placed, bottoms, tops)  # it may have kept something for backward
        for top, diff in zip(tops, top_diffs, strict=True):
            top.diff[...] = diff
        blobs = placed.learnable
        diffs = {name: blob.diff.copy() for name, blob in blobs.items()}
        for blob in blobs.values():
            blob.diff[...] = 0
        placed.layer.backward(tops, placed.propagate_down, bottoms, placed.learn)
        found = {name: blob.diff.copy() for name, blob in blobs.items()}
        for name, blob in blobs.items():
            blob.diff[...] = diffs[name]
        for name, data in before.items():
            blobs[name].data[...] = data
        written = zip(bottoms, placed.propagate_down, strict=True)
        return Backward([bottom.diff if is_written else None for bottom, is_written in written], found)

    def _with_stored(self, placed: PlacedLayer) -> dict[str, np.ndarray]:
        """Put back what stood in the layer's stored blobs before the run; what stands there now."""
        blobs = {name: blob for name, blob in placed.statistics.items() if name in self._stored}
        now = {name: blob.data.copy() for name, blob in blobs.items()}
        for name, blob in blobs.items():
            blob.data[...] = self._stored[name]
        return now

    def _stand_ins(self, place: int, for_backward: bool = False) -> tuple[list[Blob], list[Blob]]:
        """Blobs that hold the side's bottoms, and for backward its tops."""
        placed, read, made = self.net.placed[place], self.results.read[place], self.results.made[place]
        arrays = [self.data(result) for result in read]
        if for_backward and placed.spec.type in BENT_AT_ZERO:
            arrays[0] = self._on_the_side_of(arrays[0], read[0], made[0])
        is_python = isinstance(placed.layer, PythonLayer)
        bottoms = [_blob(array, is_python) for array in arrays]  # Python may write into them
        by_name = dict(zip(placed.spec.bottoms, bottoms, strict=True)) if is_python else {}
        tops = [by_name.get(name) or Blob(top.shape) for name, top in zip(placed.spec.tops, placed.tops, strict=True)]
        if for_backward:
            placed.layer.reshape(bottoms, tops)
            for top, result in zip(tops, made, strict=True):
                if result in self.side.data and not any(top is bottom for bottom in bottoms):
                    top.reshape(*self.side.data[result].shape)
                    top.data[...] = self.side.data[result]
        return bottoms, tops

    def _on_the_side_of(self, bottom: np.ndarray, read: Result, made: Result) -> np.ndarray:
        """The bottom of a layer that is bent at 0. Where it had to be computed, it may have come out on the other side
        of 0 than the side's own: its top tells."""
        top = self.side.data.get(made)
        if read in self.side.data or top is None or top.shape != bottom.shape:
            return bottom
        return np.where((bottom > 0) == (top > 0), bottom, top)


def _blob(array: np.ndarray, is_own: bool) -> Blob:
    blob = Blob()
    blob.adopt(np.array(array, np.float32) if is_own else np.asarray(array, np.float32))
    return blob


def _run_forward(placed: PlacedLayer, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
    placed.layer.reshape(bottoms, tops)
    run = placed.layer.repeat if isinstance(placed.layer, StandardLayer) else placed.layer.forward
    run(bottoms, tops)
