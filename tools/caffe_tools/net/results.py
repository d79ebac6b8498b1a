"""Which result of a blob each layer of a net reads and makes: an in-place layer makes another one of its bottom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from caffe_tools.net.net import Net


class Result(NamedTuple):
    """What a blob holds after it was written for the ``number``-th time."""

    blob: str
    number: int


class Results:
    """The results that the layers of ``net`` read and make, in the order of the layers."""

    def __init__(self, net: Net) -> None:
        self.read: list[list[Result]] = []
        """For each layer what its bottoms are."""
        self.made: list[list[Result]] = []
        """For each layer what its tops are."""
        self.counts: dict[str, int] = {}
        """How often each blob is written."""
        self.makers: dict[Result, tuple[int, int]] = {}
        """The layer that makes a result, by its place in the net, and as which top."""
        self.readers: dict[Result, list[tuple[int, int]]] = defaultdict(list)
        """The layers that read a result, by their places in the net, and as which bottoms."""
        for place, placed in enumerate(net.placed):
            self.read.append([Result(name, self.counts[name]) for name in placed.spec.bottoms])
            for index, result in enumerate(self.read[-1]):
                self.readers[result].append((place, index))
            for name in placed.spec.tops:
                self.counts[name] = self.counts.get(name, 0) + 1
            self.made.append([Result(name, self.counts[name]) for name in placed.spec.tops])
            for index, result in enumerate(self.made[-1]):
                self.makers[result] = place, index
        self._net = net

    def last(self, blob: str) -> Result:
        """What the blob holds after a forward pass."""
        return Result(blob, self.counts[blob])

    def original(self, result: Result) -> Result:
        """What an inserted Split copies; any other result is its own."""
        place, _ = self.makers[result]
        return self.read[place][0] if self._net.placed[place].spec.is_inserted else result

    def of(self, blob: str) -> Iterator[Result]:
        """All results of the blob in order."""
        return (Result(blob, number) for number in range(1, self.counts[blob] + 1))

    def whose_diff_stays(self, blob: str) -> Result:
        """The result whose gradient the blob's diff is after a backward pass. That of the first one, as layers that
        work in place overwrite the others'; but a layer that does not propagate down leaves what is there."""
        for result in self.of(blob):
            if any(self.propagates(place, index) for place, index in self.readers[result]):
                return result
        return Result(blob, 1)

    def propagates(self, place: int, index: int) -> bool:
        """Whether that layer writes the diff of that bottom."""
        placed = self._net.placed[place]
        return placed.runs_backward and placed.propagate_down[index]
