"""Why two whole runs differ though each of their layers by itself agrees: where rounding becomes large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from caffe_tools.check.by_itself import BENT_AT_ZERO, ByItself
from caffe_tools.check.compare import Difference, difference
from caffe_tools.check.sides import Side
from caffe_tools.net.keys import DATA, PDIFF
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.results import Result, Results
from caffe_tools.net.standard_layer import StandardLayer

CHOOSES = ("ArgMax", "Accuracy", "DetectionOutput", "MultiBoxLoss", "Filter", "Threshold")
"""Types whose tops jump where their bottoms change little: they count, choose or compare."""
BENT = ("AbsVal", "Clip", "HingeLoss", "ContrastiveLoss", "SmoothL1Loss")
"""Types, besides those bent at zero, whose slope changes at some value."""
MOST = 12
"""Layers that are named."""


class Reasons:
    """Looks for the layers at which two runs of ``net``, the reference and what is found, come apart."""

    def __init__(
        self, net: Net, results: Results, sides: tuple[Side, Side], rows: Mapping[str, Difference], rtol: float
    ) -> None:
        self._net, self._results, self._sides = net, results, sides
        self._rows, self._rtol = rows, rtol
        self._known: dict[tuple[str, Result], Difference | None] = {}

    def lines(self) -> list[str]:
        """A line for each layer where a difference arises that is no longer rounding; none where no row needs one."""
        if not any(row.explained for row in self._rows.values()):
            return []
        lines = list(dict.fromkeys([*self._forward(), *self._backward()]))
        if len(lines) > MOST:
            lines = [*lines[:MOST], f"and {len(lines) - MOST} more layers of these kinds"]
        return lines or ["the roundings of many layers add up; none by itself is off"]

    # Forward --------------------------------------------------------------------------------------------------------

    def _forward(self) -> Iterator[str]:
        for result in self._results.makers:
            row, judged = self._of("data", result), self._rows.get(DATA.key(result.blob))
            if row is None or row.agrees or (judged and not judged.agrees):
                continue
            chain, below = self._down_to_known(result)
            before = [self._of("data", source) for source in below]
            if chain and all(known is None or known.agrees for known in before):
                yield self._enlarges(chain, row, max((known.relative for known in before if known), default=0.0))

    def _down_to_known(self, result: Result) -> tuple[list[PlacedLayer], list[Result]]:
        """The layers, the last one first, between a result and those below it that both sides have; and these."""
        place, _ = self._results.makers[result]
        placed = self._net.placed[place]
        chain, below = [] if placed.spec.is_inserted or not placed.bottoms else [placed], []
        for source in self._results.read[place]:
            if self._of("data", source) is not None or not self._net.placed[self._results.makers[source][0]].bottoms:
                below.append(source)
            else:
                more, sources = self._down_to_known(source)
                chain, below = chain + more, below + sources
        return chain, below

    def _enlarges(self, chain: list[PlacedLayer], row: Difference, before: float) -> str:
        count = self._count_off("data", row)
        chosen = next((placed for placed in chain if placed.spec.type in CHOOSES), None)
        if chosen:
            return f"tie at {_name(chosen)}: {_elements(count)} of its top came out otherwise"
        where = " after ".join(_name(placed) for placed in chain[:3])
        grown = f"rounding of {before:.1e} below it" if before else "rounding"
        off = f"more than is allowed in {_elements(count)}"
        return f"ill-conditioned at {where}: {grown} becomes {row.relative:.1e}, {off}"

    # Backward -------------------------------------------------------------------------------------------------------

    def _backward(self) -> Iterator[str]:
        for place in reversed(range(len(self._net.placed))):
            placed = self._net.placed[place]
            if not placed.runs_backward or placed.spec.is_inserted:
                continue
            rows = [self._of("diff", r) for i, r in enumerate(self._results.read[place]) if placed.propagate_down[i]]
            parts = [self._rows.get(PDIFF.key(name)) for name in placed.learnable]
            large = [row for row in rows if row and not row.agrees] + [row for row in parts if row and row.explained]
            # what is not known on both sides may be large
            if large or any(row is None for row in rows):
                yield from filter(None, [self._kink(placed) or self._tie(place) or self._other(place, large)])

    def _kink(self, placed: PlacedLayer) -> str:
        """Elements whose sign is not that of the other run: the top has that of the bottom."""
        if placed.spec.type not in BENT_AT_ZERO:
            return ""
        ours, theirs = (side.arrays.get(DATA.key(placed.spec.tops[0])) for side in self._sides)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            return ""
        count = int(np.count_nonzero((ours > 0) != (theirs > 0)))
        return f"kink at {_name(placed)}: {_elements(count)} on different sides of 0" if count else ""

    def _tie(self, place: int) -> str:
        """Elements that a maximum takes from elsewhere, or that lie on different sides of a bend: where the layer hands
        diffs of 1 on to others."""
        placed = self._net.placed[place]
        is_maximum = _is_maximum(placed)
        bottoms = [self._results.original(bottom) for bottom in self._results.read[place]]
        known = all(bottom in side.data for bottom in bottoms for side in self._sides)
        if not known or not (is_maximum or placed.spec.type in BENT):
            return ""
        ones = [np.ones_like(top.diff) for top in placed.tops]
        passed = [ByItself(self._net, self._results, side, {}).pull_back(place, ones) for side in self._sides]
        moved = 0.0
        for ours, theirs in zip(*passed, strict=True):
            if ours is not None and theirs is not None and ours.shape == theirs.shape:
                moved += float(np.abs(ours - theirs).sum() if is_maximum else np.count_nonzero(ours != theirs))
        count = round(moved / 2 if is_maximum else moved)
        if not count:
            return ""
        if is_maximum:
            return f"tie at {_name(placed)}: {_elements(count)} taken from elsewhere"
        return f"kink at {_name(placed)}: {_elements(count)} on different sides of a bend"

    def _other(self, place: int, large: list[Difference]) -> str:
        """What else the layer does to gradients that come in as they should."""
        above = [self._of("diff", result) for result in self._results.made[place]]
        if not large or any(row is None or not row.agrees for row in above):
            return ""
        worst = max(large, key=lambda row: row.relative)
        return (
            f"ill-conditioned at {_name(self._net.placed[place])}: its gradients differ by {worst.relative:.1e}, though"
            " what it is given agrees"
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _of(self, kind: str, result: Result) -> Difference | None:
        """How far the two runs are apart in a result or its gradient; None where one of them lacks it."""
        if (kind, result) not in self._known:
            ours, theirs = ((side.data if kind == "data" else side.diffs).get(result) for side in self._sides)
            known = None
            if ours is not None and theirs is not None and ours.shape == theirs.shape:
                known = difference(kind, "", ours, theirs, self._rtol, 0.0)
            self._known[kind, result] = known
        return self._known[kind, result]

    def _count_off(self, kind: str, row: Difference) -> int:
        """How many elements are further off than the row allows."""
        (result,) = (result for (k, result), known in self._known.items() if known is row and k == kind)
        ours, theirs = ((side.data if kind == "data" else side.diffs)[result] for side in self._sides)
        with np.errstate(invalid="ignore"):
            gaps = np.abs(ours.astype(np.float64) - theirs)
        return int(np.count_nonzero(~(gaps <= self._rtol * row.largest) & (ours != theirs)))


def _is_maximum(placed: PlacedLayer) -> bool:
    """Whether the layer hands on the largest of some values."""
    if not isinstance(placed.layer, StandardLayer):
        return False
    if placed.spec.type == "Pooling":
        return placed.layer.layer.pooling_param.pool == "MAX"
    return placed.spec.type == "Eltwise" and placed.layer.layer.eltwise_param.operation == "MAX"


def _name(placed: PlacedLayer) -> str:
    return f"{placed.spec.type} {placed.name!r}"


def _elements(count: int) -> str:
    return f"{count} element{'' if count == 1 else 's'}"
