"""A Python layer between blobs of its own, which runs forward and backward again and again on the same numbers."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blob
from caffe_tools.net.python_layer import PythonLayer

Values = dict[str, np.ndarray]
"""Arrays by the name of their blob: ``bottom[0]``, ``blobs[0]``."""


class Trial:
    """Every run starts from ``values``, whatever the layer has written; numpy's and Python's random numbers begin anew.

    ``wrote`` gathers what a layer must leave alone and did not: the data of bottoms, the diffs of tops.
    """

    def __init__(
        self, make: Callable[[], PythonLayer], shapes: Sequence[tuple[int, ...]], tops: int, seed: int
    ) -> None:
        self._make, self._seed, self._afresh = make, seed % 2**32, False
        self.layer = make()
        self.bottoms = [Blob(shape, np.float64) for shape in shapes]
        self.tops = [Blob((), np.float64) for _ in range(tops)]
        self.values: Values = {}
        self.wrote: dict[str, str] = {}
        self._begin()
        self.layer.reshape(self.bottoms, self.tops)
        self.values = {name: blob.data.copy() for name, blob in self.blobs.items()}

    @property
    def blobs(self) -> dict[str, Blob]:
        """What may get a gradient."""
        named = {f"bottom[{i}]": bottom for i, bottom in enumerate(self.bottoms)}
        return named | {f"blobs[{i}]": blob for i, blob in enumerate(self.layer.blobs)}

    def forward(self) -> list[np.ndarray]:
        """The tops' data."""
        self._forward()
        return [top.data.copy() for top in self.tops]

    def backward(
        self, top_diffs: Sequence[np.ndarray], before: Mapping[str, np.ndarray], asked: Sequence[bool]
    ) -> Values:
        """Forward, then backward: the diffs of all blobs, which were ``before`` when backward began.

        ``asked`` is ``propagate_down``.
        """
        self._forward()
        for top, diff in zip(self.tops, top_diffs, strict=True):
            top.diff[...] = diff
        for name, blob in self.blobs.items():
            blob.diff[...] = before[name]
        data = [bottom.data.copy() for bottom in self.bottoms]
        self.layer.backward(self.tops, asked, self.bottoms, [True] * len(self.layer.blobs))
        for i, bottom in enumerate(self.bottoms):
            if not _equal(bottom.data, data[i]):
                self.wrote.setdefault(f"bottom[{i}]", "backward writes into its data")
        for i, top in enumerate(self.tops):
            if not _equal(top.diff, top_diffs[i]):
                self.wrote[f"top[{i}]"] = "backward writes into its diff"
        return {name: blob.diff.copy() for name, blob in self.blobs.items()}

    def settle(self, top_diffs: Sequence[np.ndarray], before: Mapping[str, np.ndarray], asked: Sequence[bool]) -> None:
        """See to it that equal values give equal numbers: by a new instance for each run where one keeps a state.

        Raises NetError where that is of no avail.
        """
        for afresh in (False, True):
            self._afresh = afresh
            tops, diffs = self.forward(), self.backward(top_diffs, before, asked)
            same_diffs = all(
                _equal(diffs[name], again) for name, again in self.backward(top_diffs, before, asked).items()
            )
            if same_diffs and all(map(_equal, tops, self.forward())):
                return
        raise NetError(
            f"{self.layer.layer_class.__name__} gives other numbers each time that it runs on the same bottoms: it"
            " draws numbers that no seed of numpy.random or random decides, or reads a clock, so that no differences"
            " can be taken"
        )

    def _begin(self) -> None:
        np.random.seed(self._seed)
        random.seed(self._seed)

    def _forward(self) -> None:
        """As Caffe does it: reshape, then forward."""
        self._begin()
        if self._afresh:
            self.layer = self._make()
            self.tops = [Blob((), np.float64) for _ in self.tops]
        for i, bottom in enumerate(self.bottoms):
            bottom.data[...] = self.values[f"bottom[{i}]"]
        self.layer.reshape(self.bottoms, self.tops)
        for name, blob in self.blobs.items():
            blob.data[...] = self.values[name]
        self.layer.forward(self.bottoms, self.tops)
        for i, bottom in enumerate(self.bottoms):
            if not _equal(bottom.data, self.values[f"bottom[{i}]"]):
                self.wrote[f"bottom[{i}]"] = "the layer writes into it"


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


@contextmanager
def apart() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been, and layers say no word: each of a thousand runs would."""
    states = np.random.get_state(), random.getstate()
    try:
        with np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
