"""How far the arrays of one run are from those of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from caffe_tools.net.keys import PDIFF, Arrays, layer_of, split_key

RTOL, ATOL = 1e-4, 0.0
"""An array agrees where every difference is at most RTOL · its largest value + ATOL."""


@dataclass(frozen=True)
class Difference:
    """How far one array of a run is from the reference's.

    ``where`` is the element with the largest difference; ``not_finite`` counts the elements of the reference that are
    infinite or NaN, and agree where the other side has just the same there.
    """

    key: str
    layer: str
    shape: tuple[int, ...]
    largest: float
    absolute: float
    relative: float
    where: tuple[int, ...]
    agrees: bool
    not_finite: int = 0
    note: str = ""
    by_itself: Difference | None = None
    """Where the whole runs differ: how far the layer alone is off, given the other side's bottoms and top diffs. It
    decides whether the row agrees; what stands above is what has gathered on the way."""

    explained: bool = False
    """Whether the whole runs differ here, though each layer by itself agrees."""

    @property
    def deciding(self) -> Difference:
        """The numbers that decide whether the row agrees."""
        return self.by_itself or self


@dataclass
class CheckResult:
    """The comparison of ``run`` with ``reference``. The rows stand in the order in which the values are computed."""

    net: str
    phase: str
    reference: str
    run: str
    rtol: float
    atol: float
    rows: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proves_nothing: list[str] = field(default_factory=list)
    """Blobs whose agreement says nothing, since all of each is 0 or the same number."""
    reasons: list[str] = field(default_factory=list)
    """Why the whole runs differ where each layer by itself agrees."""

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and all of it agrees."""
        return bool(self.rows) and all(row.agrees for row in self.rows)

    @property
    def first_wrong(self) -> Difference | None:
        return next((row for row in self.rows if not row.agrees), None)

    def as_json(self) -> dict:
        wrong = self.first_wrong
        return {**asdict(self), "agrees": self.agrees, "first_wrong": asdict(wrong) if wrong else None}


def compare(expected: Arrays, found: Arrays, layers: Mapping[str, str], rtol: float, atol: float) -> list[Difference]:
    """One row for each expected array; ``layers`` tells for a key which layer computes it."""
    rows = []
    scales = _parameter_scales(expected)
    for key, array in expected.items():
        kind, name = split_key(key)
        scale = scales.get(layer_of(name)) if kind == PDIFF else None
        rows.append(difference(key, layers.get(key, ""), array, found.get(key), rtol, atol, scale))
    return rows


def _parameter_scales(arrays: Arrays) -> dict[str, float]:
    """The largest diff of each layer's learnable blobs. A bias ahead of BatchNorm has a gradient that is exactly 0,
    and both sides return the rounding of its sum: it is measured by its layer, not by itself."""
    scales: dict[str, float] = {}
    for name, array in PDIFF.of(arrays).items():
        if array.size:
            scales[layer_of(name)] = max(scales.get(layer_of(name), 0.0), float(np.max(np.abs(array))))
    return scales


def difference(
    key: str,
    layer: str,
    expected: np.ndarray,
    found: np.ndarray | None,
    rtol: float,
    atol: float,
    scale: float | None = None,
) -> Difference:
    """Compare two arrays: the largest absolute difference, and that over ``scale`` (default: the largest value)."""
    if found is None or expected.shape != found.shape:
        note = "missing" if found is None else f"shape {found.shape}, expected {expected.shape}"
        return Difference(key, layer, expected.shape, np.nan, np.nan, np.nan, (), False, note=note)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gaps = np.zeros(a.shape)
    np.subtract(b, a, out=gaps, where=~same)
    gaps = np.abs(np.where(np.isnan(gaps), np.inf, gaps))
    largest = float(np.abs(a[finite]).max(initial=0))
    scale = largest if scale is None else scale
    absolute = float(gaps.max(initial=0))
    where = tuple(int(i) for i in np.unravel_index(int(gaps.argmax()), gaps.shape)) if absolute else ()
    relative = absolute / scale if scale else (0.0 if absolute == 0 else np.inf)
    agrees = absolute <= rtol * scale + atol
    note = f"{b[where]:g}, expected {a[where]:g}" if absolute == np.inf else ""
    return Difference(
        key, layer, expected.shape, largest, absolute, relative, where, agrees, int(np.sum(~finite)), note
    )
