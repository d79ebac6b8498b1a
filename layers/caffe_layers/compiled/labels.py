"""Labels, one per position, read by compiled code: in one pass, to what targets.py and positionwise/ make of them."""

from __future__ import annotations

import numpy as np

from caffe_layers.compiled.float32 import f, loops

KINDS = "ilqfd"
"""The dtypes that are read; what is compiled here is compiled for each one that comes."""
_NONE = np.empty(0, np.float32)


@loops
def _read(given, ignores, ignore_label, classes, of_label, label, coefficient):
    """Whether all labels are valid."""
    number_wrong = 0
    for j in range(len(given)):
        value = given[j]
        is_ignored = ignores and value == ignore_label
        is_inside = value >= 0 and value < classes
        channel = np.int32(value if is_inside and not is_ignored else 0)
        number_wrong += not is_ignored and not (is_inside and channel == value)
        label[j] = channel
        weight = of_label[channel] if len(of_label) else f(1)
        coefficient[j] = f(0) if is_ignored else weight
    return number_wrong == 0


@loops
def _read_rows(given, first_row, first_column, ignores, ignore_label, classes, of_label, label, coefficient):
    all_valid = True
    for n in range(len(label)):
        row = given[first_row + n, first_column : first_column + label.shape[1]]
        if not _read(row, ignores, ignore_label, classes, of_label, label[n], coefficient[n]):
            all_valid = False
    return all_valid


def read(given, first, ignore_label, classes, of_label, label, coefficient):
    """Write a block's ``label`` (int32; 0 where it is ignored) and ``coefficient`` (float32; 0 there); n x s.

    The block begins at the row and column ``first`` of ``given``, which is C-contiguous. ``coefficient`` is otherwise
    the label's entry of ``of_label``, or 1 where that is None. False where a label is neither valid nor to be ignored.
    """
    if given.shape[1] == 1:
        given, label, coefficient, first = given.T, label.T, coefficient.T, first[::-1]
    of_label = _NONE if of_label is None else of_label.astype(np.float32)
    ignores = ignore_label is not None
    return _read_rows(given, *first, ignores, ignore_label if ignores else 0, classes, of_label, label, coefficient)
