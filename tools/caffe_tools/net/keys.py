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

Arrays = Mapping[str, np.ndarray]
"""Arrays by their keys."""
Item = TypeVar("Item")


class Kind(str):
    """The kind of an array, such as ``data``, and the keys of those that are of it."""

    def key(self, name: str) -> str:
        """``conv1`` → ``data/conv1``."""
        return f"{self}/{name}"

    def keyed(self, items: Mapping[str, Item]) -> dict[str, Item]:
        """``items`` by name → by key."""
        return {self.key(name): item for name, item in items.items()}

    def of(self, items: Mapping[str, Item]) -> dict[str, Item]:
        """The items of this kind: by key → by name."""
        return {split_key(key)[1]: item for key, item in items.items() if split_key(key)[0] == self}


IN, PARAM, RANDOM, TOP_DIFF = Kind("in"), Kind("param"), Kind("random"), Kind("top_diff")
DATA, DIFF, PDIFF, PARAM_AFTER = Kind("data"), Kind("diff"), Kind("pdiff"), Kind("param_after")
TOTAL_LOSS = "total_loss"
GOES_IN = (IN, PARAM, TOP_DIFF)
COMES_OUT = (DATA, DIFF, PDIFF, PARAM_AFTER)


def split_key(key: str) -> tuple[str, str]:
    """``pdiff/conv1/0`` → ``pdiff``, ``conv1/0``; the kind is empty where the key has none."""
    kind, slash, name = key.partition("/")
    return (kind, name) if slash else ("", key)


def part_of(layer: str, index: int) -> str:
    """The name of the layer's learnable blob, or array of random numbers, ``index``."""
    return f"{layer}/{index}"


def layer_of(part: str) -> str:
    """``conv1/0`` → ``conv1``."""
    return part.rpartition("/")[0]


def is_known(key: str) -> bool:
    """Whether it is the key of something that goes into a run of a net, or comes out of it."""
    return key == TOTAL_LOSS or split_key(key)[0] in (*GOES_IN, *COMES_OUT)
