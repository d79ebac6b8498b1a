"""The softmax losses of labels, compiled: from scores to gradient, in tiles.

A tile is some rows where the channels are next to each other in memory, and some columns of one row where the positions
are. What a position costs is in positions.py.
"""

from __future__ import annotations

import numpy as np

from caffe_layers.compiled.float32 import exp_of_moderate, f, loops, sum_of, write_exponentials
from caffe_layers.compiled.positions import far_position, near_positions, positions
from caffe_layers.compiled.targets import dense_block  # noqa: F401, a part of what positionwise/losses.py wants

_TILE, _LONGEST, _SHORTEST = 1 << 17, 1 << 12, 1 << 8
"""Elements of a tile of columns, which is to stay in the cache, and its columns at most and at least: each channel has
its own place in memory, and long runs there are read faster."""
_ROWS_TILE = 1 << 15
"""Elements of a tile of rows."""


@loops
def _scale(e, scale):
    for j in range(len(e)):
        e[j] *= scale


@loops
def _index_rows(x, label, coefficient, factor, gamma, channels, gradient):
    """x and gradient are n x C, flat; label and coefficient are of length n."""
    total = 0.0
    rows = max(1, _ROWS_TILE // channels)
    others, e_t, scale = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    losses = np.empty(rows, np.float32)
    for start in range(0, len(label), rows):
        n = min(rows, len(label) - start)
        e = gradient[start * channels : (start + n) * channels]
        write_exponentials(x[start * channels : (start + n) * channels], e)
        # In loops of their own: a row that has just been written to in one place would have to be waited for.
        for j in range(n):
            e_t[j] = e[j * channels + label[start + j]]
            e[j * channels + label[start + j]] = f(0)
        for j in range(n):
            others[j] = sum_of(e[j * channels : (j + 1) * channels])
        weights = coefficient[start : start + n]
        part = np.float64(positions(others[:n], e_t[:n], weights, factor, gamma, scale[:n]))
        for j in range(n):
            _scale(e[j * channels : (j + 1) * channels], scale[j])
        for j in range(n):
            e[j * channels + label[start + j]] = -others[j] * scale[j]
        if part != part:
            part = near_positions(others[:n], e_t[:n], weights, gamma, losses)
            for j in range(n):
                if losses[j] != losses[j]:
                    row = e[j * channels : (j + 1) * channels]
                    x_row = x[(start + j) * channels : (start + j + 1) * channels]
                    part += far_position(x_row, label[start + j], weights[j], factor, gamma, row)
        total += part
    return total


@loops
def _channel(x, label, channel, e, others):
    """Write the exponentials of one channel of a tile of columns, and add them up where it is not the label."""
    for j in range(len(x)):
        value = exp_of_moderate(x[j])
        e[j] = value
        others[j] += f(0) if label[j] == channel else value


@loops
def _four_channels(x0, x1, x2, x3, label, channel, e0, e1, e2, e3, others):
    """The same for four, as several places of memory are read faster in turn than one after the other."""
    for j in range(len(x0)):
        value0, value1, value2, value3 = (
            exp_of_moderate(x0[j]),
            exp_of_moderate(x1[j]),
            exp_of_moderate(x2[j]),
            exp_of_moderate(x3[j]),
        )
        e0[j], e1[j], e2[j], e3[j] = value0, value1, value2, value3
        which = label[j] - channel
        others[j] += (
            (f(0) if which == 0 else value0)
            + (f(0) if which == 1 else value1)
            + (f(0) if which == 2 else value2)
            + (f(0) if which == 3 else value3)
        )


@loops
def _scale_channel(e, label, channel, others, scale, gradient):
    for j in range(len(e)):
        value = -others[j] if label[j] == channel else e[j]
        gradient[j] = value * scale[j]


@loops
def _scale_four_channels(e0, e1, e2, e3, label, channel, others, scale, gradient0, gradient1, gradient2, gradient3):
    for j in range(len(e0)):
        which, of_label = label[j] - channel, -others[j]
        gradient0[j] = (of_label if which == 0 else e0[j]) * scale[j]
        gradient1[j] = (of_label if which == 1 else e1[j]) * scale[j]
        gradient2[j] = (of_label if which == 2 else e2[j]) * scale[j]
        gradient3[j] = (of_label if which == 3 else e3[j]) * scale[j]


@loops
def _index_columns(x, label, coefficient, factor, gamma, gradient, first, e, others, e_t, scale, losses):
    """x and gradient are C x inner; label and coefficient are those of its columns from ``first`` on."""
    total = 0.0
    channels, columns = e.shape
    by_four = channels // 4 * 4
    for start in range(0, len(label), columns):
        n = min(columns, len(label) - start)
        begin, end = first + start, first + start + n
        named = label[start : start + n]
        others[:] = f(0)
        for c in range(0, by_four, 4):
            _four_channels(
                x[c, begin:end],
                x[c + 1, begin:end],
                x[c + 2, begin:end],
                x[c + 3, begin:end],
                named,
                np.int32(c),
                e[c, :n],
                e[c + 1, :n],
                e[c + 2, :n],
                e[c + 3, :n],
                others[:n],
            )
        for c in range(by_four, channels):
            _channel(x[c, begin:end], named, np.int32(c), e[c, :n], others[:n])
        for j in range(n):
            e_t[j] = e[named[j], j]
        weights = coefficient[start : start + n]
        part = np.float64(positions(others[:n], e_t[:n], weights, factor, gamma, scale[:n]))
        for c in range(0, by_four, 4):
            _scale_four_channels(
                e[c, :n],
                e[c + 1, :n],
                e[c + 2, :n],
                e[c + 3, :n],
                named,
                np.int32(c),
                others[:n],
                scale[:n],
                gradient[c, begin:end],
                gradient[c + 1, begin:end],
                gradient[c + 2, begin:end],
                gradient[c + 3, begin:end],
            )
        for c in range(by_four, channels):
            _scale_channel(e[c, :n], named, np.int32(c), others[:n], scale[:n], gradient[c, begin:end])
        if part != part:
            part = near_positions(others[:n], e_t[:n], weights, gamma, losses)
            for j in range(n):
                if losses[j] != losses[j]:
                    x_column, gradient_column = x[:, begin + j], gradient[:, begin + j]
                    part += far_position(x_column, named[j], weights[j], factor, gamma, gradient_column)
        total += part
    return total


@loops
def _index_rows_of_columns(x, label, coefficient, factor, gamma, gradient, first_row, first_column):
    """x and gradient are outer x C x inner; label and coefficient are those of a block, n x s."""
    total = 0.0
    channels = x.shape[1]
    columns = min(max(_SHORTEST, min(_LONGEST, _TILE // channels)), label.shape[1])
    e = np.empty((channels, columns), np.float32)
    others, e_t, scale = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    losses = np.empty(columns, np.float32)
    for n in range(len(label)):
        row = first_row + n
        total += _index_columns(
            x[row], label[n], coefficient[n], factor, gamma, gradient[row], first_column, e, others, e_t, scale, losses
        )
    return total


def index_block(arrays, block, label, coefficient, factor, gamma=0.0):
    """The sum of coefficient x loss of a block, as positionwise/losses.py wants it; not finite where numpy is to do it.

    ``label`` (int32) and ``coefficient`` (float32) are n x s.
    """
    layout, gradient = arrays.layout, arrays.gradient
    if layout.inner == 1:
        x, dx = arrays.scores[block.rows].reshape(-1), gradient[block.rows].reshape(-1)
        return _index_rows(x, label.reshape(-1), coefficient.reshape(-1), f(factor), float(gamma), layout.channels, dx)
    first = block.rows.start, block.columns.start
    return _index_rows_of_columns(arrays.scores, label, coefficient, f(factor), float(gamma), gradient, *first)
