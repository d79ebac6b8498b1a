"""Every net that a real Caffe ran: all its blobs, diffs and parameter diffs agree, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

import golden

SUMS_THAT_CANCEL = {"net_bn_train": {"pdiff/conv/1": "conv"}}
"""Biases whose exact gradient is 0, with the blob whose diffs they sum: BatchNorm takes out whatever a bias before it
adds, so the diffs of each channel cancel and what both programs hold is the rounding of that sum."""


@pytest.mark.parametrize("case", golden.parameters("net"))
def test_a_net_gives_the_numbers_of_a_real_caffe(case):
    net, arrays = golden.computed(case)
    cancelling = SUMS_THAT_CANCEL.get(case.name, {})
    assert golden.disagreements(net, arrays, tolerance=1e-4, leave_out=tuple(cancelling)) == {}
    for key, blob in cancelling.items():
        difference = np.abs(golden.value_of(net, key) - arrays[key])
        assert (difference <= _rounding_of_a_sum(arrays[f"diff/{blob}"])).all(), key


def _rounding_of_a_sum(diff: np.ndarray) -> np.ndarray:
    """How far apart two float32 sums over each channel of ``diff``, in any order, can be.

    One sum of n terms is off by (n - 1) u sum|term| at most, with u = 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, section 4.2).
    """
    axes = tuple(axis for axis in range(diff.ndim) if axis != 1)
    terms = diff.size // diff.shape[1]
    return 2 * (terms - 1) * 2.0**-24 * np.abs(diff).sum(axes, dtype=np.float64)
