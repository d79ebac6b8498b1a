"""How the arrays of a net are called wherever they are fed, saved, exported or compared: the keys of an ``.npz``.

What goes in:

    in/<blob>                   what the net is fed
    param/<layer>/<i>           a learnable blob
    random/<layer>/<i>          random numbers (Dropout)
    top_diff/<blob>             the diff of an output, at which the backward of a net without a loss starts

What comes out:

    data/<blob>  diff/<blob>    a blob, and the gradient by it
    pdiff/<layer>/<i>           the gradient by a learnable blob
    param_after/<layer>/<i>     a stored blob that the forward pass changes
    total_loss

A key is a kind and a name: that of a blob, or that of a part of a layer, ``<layer>/<i>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

IN, PARAM, RANDOM, TOP_DIFF = "in", "param", "random", "top_diff"
DATA, DIFF, PDIFF, PARAM_AFTER, TOTAL_LOSS = "data", "diff", "pdiff", "param_after", "total_loss"

Arrays = Mapping[str, np.ndarray]
"""Arrays by their keys."""

Item = TypeVar("Item")


def key_of(kind: str, name: str) -> str:
    """``data``, ``conv1`` → ``data/conv1``."""
    return f"{kind}/{name}"


def kind_and_name(key: str) -> tuple[str, str]:
    """``pdiff/conv1/0`` → ``pdiff``, ``conv1/0``; the kind is empty where the key has none."""
    kind, slash, name = key.partition("/")
    return (kind, name) if slash else ("", key)


def part_of(layer: str, index: int) -> str:
    """The name of the layer's learnable blob, or array of random numbers, ``index``."""
    return f"{layer}/{index}"


def layer_of(part: str) -> str:
    """``conv1/0`` → ``conv1``."""
    return part.rpartition("/")[0]


def index_of(part: str) -> int:
    """``conv1/0`` → 0."""
    return int(part.rpartition("/")[2])


def keyed(kind: str, items: Mapping[str, Item]) -> dict[str, Item]:
    """``items`` by name → by key."""
    return {key_of(kind, name): item for name, item in items.items()}


def of_kind(kind: str, items: Mapping[str, Item]) -> dict[str, Item]:
    """The items of that kind: by key → by name."""
    return {kind_and_name(key)[1]: item for key, item in items.items() if kind_and_name(key)[0] == kind}
