"""Sums that Caffe adds up number by number in float32: of millions of terms, the last are lost beside the sum.

Caffe's losses do so (softmax_loss_layer.cpp: ``loss -= log(…)``, 1 % off at 8 million elements). A sum in float64 tells
who is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from caffe_tools.check.compare import Difference, difference
from caffe_tools.check.sides import Side
from caffe_tools.errors import CaffeToolsError
from caffe_tools.net.keys import DATA, split_key
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.results import Results
from caffe_tools.net.standard_layer import StandardLayer

FEWEST = 10**5
"""So many terms, and float32 sums may be off by more than is allowed."""
LOST = 0.1 * 2.0**-24
"""How much of a sum may be lost for each of its terms."""


def with_double_sums(
    net: Net, results: Results, caffe: Side, found: Side, rows: Sequence[Difference], rtol: float
) -> tuple[list[Difference], list[str]]:
    """The rows, where Caffe's sum alone is off as explained ones, and a line for each of these."""
    kept, lines = [], []
    for row in rows:
        exact = None if row.agrees else _in_double(net, results, caffe, row)
        if exact is not None:
            terms, value = exact
            ours = difference(row.key, row.layer, value, found.arrays.get(row.key), rtol, 0.0)
            theirs = difference(row.key, row.layer, value, caffe.arrays[row.key], rtol, 0.0)
            if ours.agrees and not theirs.agrees and theirs.relative <= LOST * terms:
                row = replace(row, agrees=True, by_itself=ours, explained=True)
                lines.append(
                    f"{caffe.name} adds {terms} numbers for blob {split_key(row.key)[1]!r} in float32 and is off by"
                    f" {theirs.relative:.1e}: in float64 their sum gives {value.reshape(-1)[0]:.7g}, as here"
                )
        kept.append(row)
    return kept, lines


def _in_double(net: Net, results: Results, side: Side, row: Difference) -> tuple[int, np.ndarray] | None:
    """How many numbers a layer sums up, and its top computed in float64 from the side's bottoms; None where it is no
    large sum."""
    kind, name = split_key(row.key)
    if kind != DATA or name not in net.blobs:
        return None
    place, index = results.makers[results.last(name)]
    placed = net.placed[place]
    if not isinstance(placed.layer, StandardLayer) or not (placed.layer.is_loss or placed.spec.type == "Reduction"):
        return None
    terms = placed.bottoms[0].count // max(placed.tops[index].count, 1)
    bottoms = [side.data.get(results.original(result)) for result in results.read[place]]
    if terms < FEWEST or any(bottom is None for bottom in bottoms):
        return None
    return _tops(placed, [bottom for bottom in bottoms if bottom is not None], index, terms)


def _tops(placed: PlacedLayer, bottoms: list[np.ndarray], index: int, terms: int) -> tuple[int, np.ndarray] | None:
    assert isinstance(placed.layer, StandardLayer)
    try:
        top = placed.layer.in_double(bottoms)[index]
    except CaffeToolsError:  # ONNX Runtime has not every operator in float64
        return None
    return (terms, top) if np.isfinite(top).all() else None
