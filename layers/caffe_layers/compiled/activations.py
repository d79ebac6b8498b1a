"""Softmax and sigmoid, compiled: what softmax.py and sigmoid.py write. Scores and result may be one array."""

from __future__ import annotations

import numpy as np

from caffe_layers.compiled.float32 import (
    add_exponentials,
    exp64,
    exp_of_negative,
    f,
    largest_of,
    loops,
    sum_of,
    write_exponentials,
)

_LOW, _HIGH = f(1e-6), f(1e28)
"""Where a sum of exponentials is above the one, what exp_of_moderate cuts off below -87.3 is nothing beside it."""
_TILE, _LONGEST, _SHORTEST = 1 << 15, 1 << 12, 1 << 7
"""Elements of a tile, which is to stay in the cache; of one of columns, its columns at most and at least."""


@loops
def _sigmoids(x, p):
    for j in range(len(x)):
        e = exp_of_negative(-abs(x[j]))
        larger = f(1) / (f(1) + e)
        p[j] = larger if x[j] >= f(0) else e * larger


@loops
def sigmoid(x, result):
    """Write the sigmoid of flat arrays, by way of memory that is neither: what may overlap is not vectorised."""
    p = np.empty(_TILE, np.float32)
    for start in range(0, len(x), _TILE):
        end = min(start + _TILE, len(x))
        _sigmoids(x[start:end], p[: end - start])
        result[start:end] = p[: end - start]


@loops
def _far_position(x, e):
    """Write the exponentials of a position below its largest score, and give their sum; NaN where a score is."""
    largest = largest_of(x)
    total = f(0)
    for c in range(len(x)):
        e[c] = f(exp64(np.float64(x[c]) - np.float64(largest)))
        total += e[c]
    return total


@loops
def _scaled(e, scale, p):
    for j in range(len(e)):
        p[j] = e[j] * scale


@loops
def _softmax_of_rows(x, p, channels):
    """x and p are flat, n x C."""
    rows = max(1, _TILE // channels)
    e = np.empty(rows * channels, np.float32)
    for start in range(0, len(x), rows * channels):
        n = min(rows * channels, len(x) - start)
        write_exponentials(x[start : start + n], e[:n])
        for j in range(0, n, channels):
            row = e[j : j + channels]
            total = sum_of(row)
            if not (total > _LOW and total < _HIGH):
                total = _far_position(x[start + j : start + j + channels], row)
            _scaled(row, f(1) / total, p[start + j : start + j + channels])


@loops
def _scaled_columns(e, scale, p):
    for j in range(len(e)):
        p[j] = e[j] * scale[j]


@loops
def _softmax_of_columns(x, p, first_row, first_column, n, s):
    """x and p are outer x C x inner; n rows and s columns of them."""
    channels = x.shape[1]
    columns = min(max(_SHORTEST, min(_LONGEST, 4 * _TILE // channels)), s)
    e, total = np.empty((channels, columns), np.float32), np.empty(columns, np.float32)
    for row in range(first_row, first_row + n):
        for begin in range(first_column, first_column + s, columns):
            end = min(begin + columns, first_column + s)
            width = end - begin
            total[:] = f(0)
            for c in range(channels):
                add_exponentials(x[row, c, begin:end], e[c, :width], total[:width])
            for j in range(width):
                if not (total[j] > _LOW and total[j] < _HIGH):
                    total[j] = _far_position(x[row, :, begin + j], e[:, j])
                total[j] = f(1) / total[j]
            for c in range(channels):
                _scaled_columns(e[c, :width], total[:width], p[row, c, begin:end])


def softmax_block(scores, block, result):
    """Write the softmax of a block of outer x C x inner scores."""
    rows, columns = block
    n, channels, inner = scores.shape
    if inner == 1:
        _softmax_of_rows(scores[rows].reshape(-1), result[rows].reshape(-1), channels)
    else:
        s = columns.stop - columns.start
        _softmax_of_columns(scores, result, rows.start, columns.start, rows.stop - rows.start, s)
