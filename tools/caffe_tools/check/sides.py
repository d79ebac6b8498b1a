"""What one way of running a net holds: the results of its blobs, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe_tools.net.keys import DATA, DIFF, IN, Arrays, Kind
from caffe_tools.net.net import Net
from caffe_tools.net.results import Result, Results


@dataclass(eq=False)
class Side:
    """data and diffs: the results that are known, and their gradients; arrays: all that it gave, by key."""

    name: str
    data: dict[Result, np.ndarray]
    diffs: dict[Result, np.ndarray]
    arrays: Arrays


def side_of(name: str, net: Net, results: Results, arrays: Arrays, fed: Arrays) -> Side:
    """The side that gave ``arrays``: of the blobs that in-place layers change it has the last results alone, and the
    gradients that stay."""
    made = {Result(blob, 1): array for blob, array in IN.of(fed).items()}
    shapes = {name: blob.shape for name, blob in net.blobs.items()}

    def fitting(kind: Kind) -> dict[str, np.ndarray]:
        return {blob: array for blob, array in kind.of(arrays).items() if array.shape == shapes.get(blob)}

    data = {results.last(blob): array for blob, array in fitting(DATA).items()}
    diffs = {results.whose_diff_stays(blob): array for blob, array in fitting(DIFF).items()}
    return Side(name, made | data, diffs, arrays)
