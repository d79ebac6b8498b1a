"""The rows in which two whole runs differ, judged layer by layer.

A rounding that lands on the other side of a ReLU's 0 changes every gradient below, and no layer is wrong. So a layer is
right if, given the bottoms and the top diffs that a side has, it gives the tops and the bottom diffs of that side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from caffe_tools.check.by_itself import ByItself
from caffe_tools.check.compare import Difference, difference
from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import DATA, DIFF, PARAM_AFTER, PDIFF, split_key

Piece = tuple[str, Difference]
"""What a layer by itself says of the row of that key."""


class Judge:
    """Holds each row of a comparison against the layers by themselves, over the values of one side.

    ``is_reference``: the side is the reference, and the layers by themselves are what is found. ``places`` are those of
    the layers that are tried.
    """

    def __init__(self, layers: ByItself, rtol: float, atol: float, is_reference: bool, places: Set[int]) -> None:
        self._layers, self._net, self._results, self._side = layers, layers.net, layers.results, layers.side
        self._rtol, self._atol, self._is_reference, self._places = rtol, atol, is_reference, places
        self._owners = _owners(self._net.learnable)

    def judged(self, rows: Sequence[Difference]) -> list[Difference]:
        """The rows; those that differ, and those with inner results, as their layers by themselves have it."""
        keys = {row.key for row in rows if not self._is_overwritten(row)}
        differing = {row.key for row in rows if not row.agrees} & keys
        pieces: dict[str, list[Difference]] = defaultdict(list)
        for found in (self._forward(keys, differing), self._backward(keys, differing), self._parameters(differing)):
            for key, piece in found:
                pieces[key].append(piece)
        return [_with_pieces(row, pieces[row.key]) for row in rows]

    def _is_overwritten(self, row: Difference) -> bool:
        """Whether a layer wrote into its bottom, so that no layer makes what the blob holds."""
        kind, blob = split_key(row.key)
        if kind != DATA or not row.layer:
            return False
        place, _ = self._results.makers[self._results.last(blob)]
        return self._net.placed[place].name != row.layer

    # What there is to say of each row, in the order in which the values are computed ----------------------------------

    def _forward(self, keys: Set[str], differing: Set[str]) -> Iterator[Piece]:
        for place, placed in enumerate(self._net.placed):
            if place not in self._places or not placed.bottoms or placed.spec.is_inserted:
                continue
            for index, result in enumerate(self._results.made[place]):
                key = DATA.key(result.blob)
                is_inner = result != self._results.last(result.blob)
                if result in self._side.data and (key in differing or (is_inner and key in keys)):
                    top = self._layers.forward(place).tops[index]
                    yield key, self._difference(key, placed.name, self._side.data[result], top)
            for name in placed.statistics:
                key = PARAM_AFTER.key(name)
                if key in differing:
                    stored = self._layers.forward(place).stored[name]
                    yield key, self._difference(key, placed.name, self._side.arrays.get(key), stored)
            self._layers.drop_forward(place)

    def _backward(self, keys: Set[str], differing: Set[str]) -> Iterator[Piece]:
        read_from = self._lowest_places()
        for place in reversed(range(len(self._net.placed))):
            for result in self._results.made[place]:
                # the gradients by a Split's tops belong to that of what it copies
                own, whole = DIFF.key(result.blob), DIFF.key(self._net.copies.get(result.blob, result.blob))
                stays = self._results.whose_diff_stays(result.blob)
                readers = {reader for reader, index in self._results.readers[result] if self._gives(reader, index)}
                is_known = result in self._side.diffs and result.number >= stays.number and readers <= self._places
                key = own if own in keys else whole
                if is_known and (key in differing or (result != stays and key in keys)):
                    layer = self._net.placed[min(readers)].name if readers else ""
                    diff = self._layers.diff_from_readers(result)
                    yield key, self._difference(own, layer, self._side.diffs[result], diff)
            for reader in read_from[place]:
                self._layers.drop_backward(reader)

    def _lowest_places(self) -> dict[int, list[int]]:
        """For each layer those above it that are no longer needed when backward has passed it."""
        found: dict[int, list[int]] = defaultdict(list)
        for reader, read in enumerate(self._results.read):
            if read:
                found[min(self._results.makers[result][0] for result in read)].append(reader)
        return found

    def _parameters(self, differing: Set[str]) -> Iterator[Piece]:
        for name in self._net.learnable:
            key, users = PDIFF.key(name), self._users(name)
            if key not in differing or not set(users) <= self._places:
                continue
            total, scale = np.zeros_like(self._net.learnable[name].diff), 0.0
            for place in users:
                diffs = self._layers.backward(place).learnable
                for part, diff in diffs.items():
                    if self._owners[part] == self._owners[name]:
                        total += diff.reshape(total.shape)
                scale = max(scale, *(float(np.abs(diff).max(initial=0)) for diff in diffs.values()))
            layer = self._net.placed[users[0]].name if users else ""
            yield key, self._difference(key, layer, self._side.arrays.get(key), total, scale)

    # ----------------------------------------------------------------------------------------------------------------

    def _gives(self, place: int, index: int) -> bool:
        return self._results.propagates(place, index)

    def _users(self, name: str) -> list[int]:
        """The layers that learn a blob, by their places: those that share it add up their gradients."""
        owner = self._owners[name]
        placed = enumerate(self._net.placed)
        return [i for i, p in placed if p.runs_backward and any(self._owners[part] == owner for part in p.learnable)]

    def _difference(
        self, key: str, layer: str, of_side: np.ndarray | None, alone: np.ndarray, scale: float | None = None
    ) -> Difference:
        if of_side is None:
            return difference(key, layer, alone, None, self._rtol, self._atol)
        expected, found = (of_side, alone) if self._is_reference else (alone, of_side)
        return difference(key, layer, expected, found, self._rtol, self._atol, scale)


def _owners(learnable: Mapping[str, Blob]) -> dict[str, str]:
    """For each learnable blob the first that shares its memory."""
    first: dict[int, str] = {}
    return {name: first.setdefault(blob.memory, name) for name, blob in learnable.items()}


def _with_pieces(row: Difference, pieces: Sequence[Difference]) -> Difference:
    """The row as its pieces have it: the first that is wrong, or the one that is furthest off."""
    wrong = next((piece for piece in pieces if not piece.agrees), None)
    if wrong is not None:
        return replace(row, agrees=False, layer=wrong.layer or row.layer, by_itself=wrong, explained=False)
    if row.agrees or not pieces:
        return row
    return replace(row, agrees=True, by_itself=max(pieces, key=lambda piece: piece.relative), explained=True)


def both_judged(rows: Sequence[Difference], others: Sequence[Difference]) -> list[Difference]:
    """The rows judged over one side and over the other: both must be right, as far as they say something."""
    return [_worse(row, other) for row, other in zip(rows, others, strict=True)]


def _worse(row: Difference, other: Difference) -> Difference:
    for judged in (row, other):
        if judged.by_itself and not judged.agrees:
            return judged
    return row if row.by_itself or not other.by_itself else other
