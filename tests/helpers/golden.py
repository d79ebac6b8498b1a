"""Cases that a real Caffe computed: which there are, how they are fed to a net, and what the net must agree with.

They stand in ``../shared/golden`` beside the project; its README.md explains the keys of a case's arrays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from caffe_tools import prototxt, standard
from caffe_tools.net.net import Net
from caffe_tools.prototxt.message import Message

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden"
MOVE_OR_COUNT = {
    "Accuracy",
    "ArgMax",
    "Concat",
    "Crop",
    "Eltwise",
    "Filter",
    "Flatten",
    "Permute",
    "Reshape",
    "Silence",
    "Slice",
    "Threshold",
}
"""Types whose results are bits moved or counted, so that nothing may be rounded (Eltwise only where it takes a MAX)."""


@dataclass(frozen=True)
class Case:
    """One entry of index.json."""

    name: str
    kind: str
    layers: tuple[str, ...]
    phase: str
    level: int = 0
    stages: tuple[str, ...] = ()
    weights: str | None = None

    @property
    def prototxt(self) -> Path:
        return FOLDER / f"{self.name}.prototxt"

    @property
    def is_exact(self) -> bool:
        exact = MOVE_OR_COUNT if "max" in self.name else MOVE_OR_COUNT - {"Eltwise"}
        return bool(self.layers) and set(self.layers) <= exact

    def message(self) -> Message:
        return prototxt.load(self.prototxt)

    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.prototxt.with_suffix(".npz"), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def net(self, message: Message | None = None, allow_modules: tuple[str, ...] = ()) -> Net:
        """The case's net (or ``message`` in its place), not yet fed."""
        weights = FOLDER.parent / "models" / self.weights if self.weights else None
        return Net(
            self.prototxt if message is None else message,
            self.phase,
            level=self.level,
            stages=self.stages,
            weights=weights,
            allow_modules=allow_modules,
        )


@cache
def _index() -> dict[str, Case]:
    if not FOLDER.is_dir():
        return {}
    entries = json.loads((FOLDER / "index.json").read_text())
    return {
        name: Case(
            name,
            entry["kind"],
            tuple(entry["layers"]),
            entry["phase"],
            entry.get("level", 0),
            tuple(entry.get("stages") or ()),
            entry.get("weights"),
        )
        for name, entry in entries.items()
        if not (FOLDER / f"{name}.solver.prototxt").exists()
    }


def case(name: str) -> Case:
    return _index()[name]


def parameters(kind: str, type_: str | None = None) -> list:
    """The cases of a kind (with a layer of type ``type_``) for ``parametrize``; those that cannot run are skipped."""
    if not FOLDER.is_dir():
        reason = "needs the reference data in shared/golden beside the project, which is not there"
        return [pytest.param(None, id="no-reference-data", marks=pytest.mark.skip(reason=reason))]
    return [
        pytest.param(found, id=found.name, marks=_why_skipped(found))
        for found in _index().values()
        if found.kind == kind and (type_ is None or type_ in found.layers)
    ]


def _why_skipped(found: Case) -> list:
    missing = sorted(set(found.layers) - set(standard.TYPES) - {"Python"})
    return [pytest.mark.skip(reason=f"layer type {', '.join(missing)} is not covered yet")] if missing else []


def feed(net: Net, arrays: dict[str, np.ndarray]) -> None:
    """The inputs and the learnable blobs that Caffe had."""
    for kind, name, index, value in _entries(arrays):
        if kind == "in":
            net.blobs[name].reshape(*value.shape)
            net.blobs[name].data[...] = value
        elif kind == "param":
            net.params[name][index].data[...] = value
    net.reshape()


def run(net: Net, arrays: dict[str, np.ndarray]) -> None:
    """Forward, and backward where Caffe went backward, from the diffs that it was given."""
    net.forward()
    if has_backward(arrays):
        for kind, name, _, value in _entries(arrays):
            if kind == "top_diff":
                net.blobs[name].diff[...] = value
        net.backward()


def computed(case: Case, net: Net | None = None) -> tuple[Net, dict[str, np.ndarray]]:
    """The case's net (or ``net`` in its place) when it has run on what Caffe was given, and Caffe's arrays."""
    arrays, net = case.arrays(), net or case.net()
    feed(net, arrays)
    run(net, arrays)
    return net, arrays


def has_backward(arrays: dict[str, np.ndarray]) -> bool:
    return any(key.startswith("diff/") for key in arrays)


def disagreements(net: Net, arrays: dict[str, np.ndarray], tolerance: float, leave_out: tuple[str, ...] = ()) -> dict:
    """Key → the difference relative to Caffe's largest value, for everything that differs by more than ``tolerance``.

    ``leave_out`` are keys, or kinds of keys, that are not compared.
    """
    found = {}
    for key, value in arrays.items():
        kind = key.split("/")[0]
        if key in leave_out or kind in leave_out or kind in ("in", "param", "top_diff"):
            continue
        difference = relative_difference(value_of(net, key), value)
        if not difference <= tolerance:
            found[key] = difference
    return found


def value_of(net: Net, key: str) -> np.ndarray:
    """What ``net`` holds under the key of a case's array."""
    if key == "total_loss":
        return np.asarray(net.total_loss)
    kind, name, *index = key.split("/")
    if kind in ("data", "diff"):
        return getattr(net.blobs[name], kind)
    return net.params[name][int(index[0])].diff if kind == "pdiff" else net.params[name][int(index[0])].data


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, divided by the largest value wanted; inf for another shape or a NaN in another place.

    The loss of a Python layer, of shape (1,), stands for the 0-d one of C++.
    """
    if wanted.shape == () and found.shape == (1,):
        found = found.reshape(())
    if found.shape != wanted.shape or not np.array_equal(np.isnan(found), np.isnan(wanted)):
        return np.inf
    known = ~np.isnan(wanted)
    difference = np.abs(found[known].astype(np.float64) - wanted[known])
    if not difference.any():
        return 0.0
    largest = np.abs(wanted[known]).max()
    return float(difference.max() / largest) if largest else np.inf


def _entries(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, str, int, np.ndarray]]:
    for key, value in arrays.items():
        kind, _, rest = key.partition("/")
        name, _, index = rest.partition("/")
        yield kind, name, int(index or 0), value
