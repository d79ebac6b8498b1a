"""Where NaN or infinity first appears in a training run: in forward, in backward, or in an update.

A run is watched by what shows it at little cost: the loss, the gradients, and what an update leaves. Only where one of
these is not finite are the layers looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from caffe_tools.errors import CaffeToolsError, SolverError
from caffe_tools.net.blob import Blob
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.training.update import Updater


class NotFiniteError(SolverError):
    """Training has met NaN or infinity in layer ``layer``, at ``iteration``."""

    def __init__(self, iteration: int, layer: str, text: str) -> None:
        super().__init__(text)
        self.iteration, self.layer = iteration, layer


Place = tuple[str, str]
"""The name of the layer where it first appears, and what is to be said of it."""


def is_finite(array: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; the sum tells, unless it overflows."""
    with np.errstate(all="ignore"):
        return math.isfinite(np.sum(array)) or bool(np.isfinite(array).all())


def state_is_finite(updater: Updater) -> bool:
    """Whether the learnable blobs and the solver's history are worth a snapshot."""
    return all(is_finite(array) for array in (*(item.blob.data for item in updater.blobs), *updater.history))


# Where it appears -----------------------------------------------------------------------------------------------------


def in_forward(net: Net) -> Place:
    """The first layer with a top that is not finite, when the last forward pass is made again on its data.

    That leaves the stored blobs that a forward pass changes as they were.
    """
    kept = [(blob, blob.data.copy()) for placed in net.placed for blob in placed.statistics.values()]
    try:
        return _first_top(net.placed) or _total(net)
    finally:
        for blob, data in kept:
            blob.data[...] = data


def in_backward(net: Net) -> Place | None:
    """The first layer, from the losses down, whose backward left a diff that is not finite."""
    for placed in reversed(net.placed):
        if not placed.runs_backward:
            continue
        for name, blob in _written_diffs(placed):
            if not is_finite(blob.diff):
                return (
                    placed.name,
                    f"backward of {placed.spec.place} gives {_kind(blob.diff)} as the gradient of {name}",
                )
    return None


def in_update(updater: Updater, rate: float) -> Place | None:
    """The first learnable blob that the update, or the solver's history of it, has made not finite."""
    count = len(updater.blobs)
    for index, item in enumerate(updater.blobs):
        for what, array in (("", item.blob.data), *(("the history of ", a) for a in updater.history[index::count])):
            if not is_finite(array):
                layer = item.name.rpartition("/")[0]
                return layer, (
                    f"the update, at a learning rate of {rate:g}, leaves {_kind(array)} in {what}the learnable blob"
                    f" {item.name!r}"
                )
    return None


def _first_top(layers: Sequence[PlacedLayer]) -> Place | None:
    for placed in layers:
        if not placed.makes_data:
            try:
                with np.errstate(all="ignore"):
                    placed.layer.repeat(placed.bottoms, placed.tops)
            except CaffeToolsError as error:  # a label out of range, which no graph has looked for
                return placed.name, str(error)
        for name, top in zip(placed.spec.tops, placed.tops, strict=True):
            if not is_finite(top.data):
                text = f"{placed.spec.place} gives {_kind(top.data)} in its top {name!r}"
                if placed.makes_data:
                    return placed.name, f"{text}: the data is not finite"
                stored = [part for part, blob in placed.learnable.items() if not is_finite(blob.data)]
                why = f"its learnable blob {stored[0]!r} is not finite" if stored else "though its bottoms are finite"
                return placed.name, f"{text}{':' if stored else ','} {why}"
    return None


def _total(net: Net) -> Place:
    """Every top is finite, but not the sum of the losses."""
    placed = next(placed for placed in reversed(net.placed) if any(placed.loss_weights))
    return placed.name, f"the loss is not finite, though every blob is: look at the loss_weight of {placed.spec.place}"


def _written_diffs(placed: PlacedLayer) -> Iterator[tuple[str, Blob]]:
    for (name, blob), learns in zip(placed.learnable.items(), placed.learn, strict=True):
        if learns:
            yield f"its learnable blob {name!r}", blob
    for name, blob, is_asked in zip(placed.spec.bottoms, placed.bottoms, placed.propagate_down, strict=True):
        if is_asked:
            yield f"its bottom {name!r}", blob


def _kind(array: np.ndarray) -> str:
    return "NaN" if np.isnan(array).any() else "infinity"
