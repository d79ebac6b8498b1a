"""The softmax losses, compiled: the formulas of softmax_loss.py and softmax_focal.py, for one position or element.

Positions are done in tiles: some rows where the channels are next to each other in memory, some columns of one row
where the positions are. Exponentials are taken without subtracting the largest score; where a sum of them is near the
ends of float32, the tile's total is NaN, and the numpy engine does the block.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers.compiled_math import exp_of_moderate, f, function, log1p, loops, power, power64

_TILE, _LONGEST, _SHORTEST = 1 << 17, 1 << 12, 1 << 8
"""Elements of a tile of columns, which is to stay in the cache, and its columns at most and at least: each channel has
its own place in memory, and long runs there are read faster."""
_ROWS_TILE = 1 << 15
"""Elements of a tile of rows."""
_LOW, _HIGH = f(1e-26), f(1e28)
_NAN = f(np.nan)


@function
def of_label(others, e_t, gamma, modulation):
    """(loss, d loss / d(-log p_t), 1 / sum) from the exponentials' sum over the others and that of the label.

    ``modulation`` is (1 - p_t)^gamma.
    """
    total = others + e_t
    inverse = f(1) / total
    ratio = others / e_t
    loss = log1p(ratio)
    q = others * inverse
    slope = modulation * (f(1) + gamma * (e_t * inverse) * (loss / q)) if gamma > f(0) else f(1)
    # All that is computed has its digits just when these are in range; no NaN is.
    scale = slope * inverse
    in_range = f(1) if others > _LOW else _NAN
    in_range = in_range if e_t > _LOW else _NAN
    in_range = in_range if q > _LOW else _NAN
    in_range = in_range if scale > _LOW else _NAN
    in_range = in_range if ratio < _HIGH else _NAN
    in_range = in_range if total < _HIGH else _NAN
    # The power multiplies the relative error of q, which is that of others where the label is likely.
    in_range = in_range if gamma <= f(2) or others > e_t else _NAN
    return modulation * loss * in_range, slope, inverse


@loops
def _modulate(others, e_t, gamma, modulation):
    """Write (1 - p_t)^gamma."""
    if gamma == 0:
        modulation[:] = f(1)
    elif gamma == 1 or gamma == 2:
        for j in range(len(others)):
            modulation[j] = power(others[j] / (others[j] + e_t[j]), f(gamma))
    else:
        for j in range(len(others)):
            total = np.float64(others[j]) + np.float64(e_t[j])
            modulation[j] = f(power64(np.float64(others[j]) / total, gamma))


@loops
def _positions(others, e_t, coefficient, factor, gamma, scale):
    """The sum of coefficient x loss; ``scale`` becomes what the exponentials are to be multiplied by."""
    _modulate(others, e_t, gamma, scale)
    total = f(0)
    for j in range(len(others)):
        loss, slope, inverse = of_label(others[j], e_t[j], f(gamma), scale[j])
        weight = coefficient[j]
        total += weight * loss
        scale[j] = weight * factor * slope * inverse
    return total


@loops
def _exponentials(x, e):
    for j in range(len(x)):
        e[j] = exp_of_moderate(x[j])


@loops
def _sum(e):
    total = f(0)
    for j in range(len(e)):
        total += e[j]
    return total


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
    for start in range(0, len(label), rows):
        n = min(rows, len(label) - start)
        e = gradient[start * channels : (start + n) * channels]
        _exponentials(x[start * channels : (start + n) * channels], e)
        # In loops of their own: a row that has just been written to in one place would have to be waited for.
        for j in range(n):
            e_t[j] = e[j * channels + label[start + j]]
            e[j * channels + label[start + j]] = f(0)
        for j in range(n):
            others[j] = _sum(e[j * channels : (j + 1) * channels])
        total += np.float64(_positions(others[:n], e_t[:n], coefficient[start : start + n], factor, gamma, scale[:n]))
        for j in range(n):
            _scale(e[j * channels : (j + 1) * channels], scale[j])
        for j in range(n):
            e[j * channels + label[start + j]] = -others[j] * scale[j]
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
def _index_columns(x, label, coefficient, factor, gamma, gradient, first, e, others, e_t, scale):
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
        total += np.float64(_positions(others[:n], e_t[:n], coefficient[start : start + n], factor, gamma, scale[:n]))
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
    return total


@loops
def _index_rows_of_columns(x, label, coefficient, factor, gamma, gradient, first_row, first_column):
    """x and gradient are outer x C x inner; label and coefficient are those of a block, n x s."""
    total = 0.0
    channels = x.shape[1]
    columns = min(max(_SHORTEST, min(_LONGEST, _TILE // channels)), label.shape[1])
    e = np.empty((channels, columns), np.float32)
    others, e_t, scale = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    for n in range(len(label)):
        row = first_row + n
        total += _index_columns(
            x[row], label[n], coefficient[n], factor, gamma, gradient[row], first_column, e, others, e_t, scale
        )
    return total


def index_block(arrays, block, label, coefficient, factor, gamma=0.0):
    """The sum of coefficient x loss of a block, as positionwise.py wants it; not finite where numpy is to do it.

    ``label`` (int32) and ``coefficient`` (float32) are n x s.
    """
    layout, gradient = arrays.layout, arrays.gradient
    if layout.inner == 1:
        x, dx = arrays.scores[block.rows].reshape(-1), gradient[block.rows].reshape(-1)
        return _index_rows(x, label.reshape(-1), coefficient.reshape(-1), f(factor), float(gamma), layout.channels, dx)
    first = block.rows.start, block.columns.start
    return _index_rows_of_columns(arrays.scores, label, coefficient, f(factor), float(gamma), gradient, *first)


@function
def of_targets(total, mass, weighted):
    """mass log(total) - weighted, or NaN where it is small beside its terms, or they near the ends of float32."""
    loss = mass * math.log(total) - weighted
    if mass > 0 and loss < mass + 0.5 * abs(weighted):
        return np.nan
    return loss if total > _LOW and total < _HIGH else np.nan


@loops
def _target_row(x, t, e):
    """Write the exponentials of a row and give the sums: of them, of t, of t x, of t > 0, of t out of range."""
    total, mass, weighted, number, bad = f(0), f(0), f(0), f(0), f(0)
    for c in range(len(x)):
        value = exp_of_moderate(x[c])
        e[c] = value
        total += value
        mass += t[c]
        weighted += t[c] * x[c]
        number += f(1) if t[c] > f(0) else f(0)
        bad += f(1) if t[c] < f(0) else f(0)
    return total, mass, weighted, number, bad


@loops
def _target_gradient(e, t, scale, weight):
    for c in range(len(e)):
        e[c] = e[c] * scale - t[c] * weight


@loops
def _exactly(x, t):
    """The loss of a position in float64, by way of the largest score."""
    largest, tail, weighted, mass = x[0], 0.0, 0.0, 0.0
    at = 0
    for c in range(len(x)):
        if x[c] > largest:
            largest, at = x[c], c
    for c in range(len(x)):
        below = np.float64(largest) - np.float64(x[c])
        tail += math.exp(-below) if c != at else 0.0
        weighted += np.float64(t[c]) * below
        mass += np.float64(t[c])
    return mass * math.log1p(tail) + weighted


@loops
def _dense_rows(x, t, coefficient, factor, by_number, gradient):
    """x, t and gradient are n x C, the coefficient of length n; ``by_number`` divides each row by its number of t."""
    result = 0.0
    for n in range(len(x)):
        total, mass, weighted, number, bad = _target_row(x[n], t[n], gradient[n])
        if bad > f(0) or not mass < _HIGH:
            return np.nan
        loss = of_targets(np.float64(total), np.float64(mass), np.float64(weighted))
        if loss != loss:
            if not (total > _LOW and total < _HIGH):
                return np.nan
            loss = _exactly(x[n], t[n])
        weight = coefficient[n] / max(number, f(1)) if by_number else coefficient[n]
        result += weight * loss
        weight = f(weight * factor)
        _target_gradient(gradient[n], t[n], weight * mass / total, weight)
    return result


def dense_block(arrays, block, target, coefficient, factor, by_number):
    """The same for targets of the scores' shape, where the channels are next to each other: else it is numpy's."""
    x, t, dx = (
        array.reshape(-1, arrays.layout.channels)
        for array in (arrays.scores[block.rows], target, arrays.gradient[block.rows])
    )
    coefficient = np.ascontiguousarray(np.broadcast_to(coefficient, (len(x), 1)).reshape(-1), np.float64)
    return _dense_rows(x, t, coefficient, factor, by_number, dx)
