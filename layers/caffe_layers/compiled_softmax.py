"""The softmax losses, compiled: the formulas of softmax_loss.py and softmax_focal.py, for one position or element.

Positions are done in tiles: some rows where the channels are next to each other in memory, some columns of one row
where the positions are. Exponentials are taken without subtracting the largest score; where a sum of them is near the
ends of float32, the tile's total is NaN, and the numpy engine does the block.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers.compiled_math import exp, f, function, log1p, loops, power, power64

_ROWS, _COLUMNS = 64, 1024
_LOW, _HIGH = f(1e-28), f(1e28)
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
def _row(x, label, e):
    """Write the exponentials of a row and give their sum over the others than the label."""
    total = f(0)
    for c in range(len(x)):
        value = exp(x[c])
        e[c] = value
        total += value if c != label else f(0)
    return total


@loops
def _scale_row(e, scale):
    for c in range(len(e)):
        e[c] *= scale


@loops
def _index_rows(x, label, coefficient, factor, gamma, gradient):
    """x and gradient are n x C, label and coefficient of length n."""
    total = 0.0
    others, e_t, scale = np.empty(_ROWS, np.float32), np.empty(_ROWS, np.float32), np.empty(_ROWS, np.float32)
    for start in range(0, len(x), _ROWS):
        n = min(_ROWS, len(x) - start)
        for j in range(n):
            row = gradient[start + j]
            others[j] = _row(x[start + j], label[start + j], row)
            e_t[j] = row[label[start + j]]
        total += np.float64(_positions(others[:n], e_t[:n], coefficient[start : start + n], factor, gamma, scale[:n]))
        for j in range(n):
            row = gradient[start + j]
            _scale_row(row, scale[j])
            row[label[start + j]] = -others[j] * scale[j]
    return total


@loops
def _channel(x, label, channel, e, others, e_t):
    """One channel of a tile of columns."""
    for j in range(len(x)):
        value = exp(x[j])
        e[j] = value
        is_label = label[j] == channel
        others[j] += f(0) if is_label else value
        e_t[j] = value if is_label else e_t[j]


@loops
def _scale_channel(e, label, channel, others, scale, gradient):
    for j in range(len(e)):
        value = -others[j] if label[j] == channel else e[j]
        gradient[j] = value * scale[j]


@loops
def _index_columns(x, label, coefficient, factor, gamma, gradient, first):
    """x and gradient are C x inner; label and coefficient are those of its columns from ``first`` on."""
    total = 0.0
    channels = len(x)
    e, named = np.empty((channels, _COLUMNS), np.float32), np.empty(_COLUMNS, np.int32)
    others, e_t, scale = np.empty(_COLUMNS, np.float32), np.empty(_COLUMNS, np.float32), np.empty(_COLUMNS, np.float32)
    for start in range(0, len(label), _COLUMNS):
        n = min(_COLUMNS, len(label) - start)
        begin, end = first + start, first + start + n
        for j in range(n):
            named[j] = label[start + j]
        others[:] = f(0)
        for c in range(channels):
            _channel(x[c, begin:end], named[:n], np.int32(c), e[c, :n], others[:n], e_t[:n])
        total += np.float64(_positions(others[:n], e_t[:n], coefficient[start : start + n], factor, gamma, scale[:n]))
        for c in range(channels):
            _scale_channel(e[c, :n], named[:n], np.int32(c), others[:n], scale[:n], gradient[c, begin:end])
    return total


def index_block(arrays, block, label, coefficient, factor, gamma=0.0):
    """The sum of coefficient x loss of a block, as positionwise.py wants it; not finite where numpy is to do it."""
    layout, gradient = arrays.layout, arrays.gradient
    coefficient = np.broadcast_to(coefficient, label.shape)
    if layout.inner == 1:
        x, dx = (array[block.rows].reshape(-1, layout.channels) for array in (arrays.scores, gradient))
        coefficient = np.ascontiguousarray(coefficient.reshape(-1), np.float32)
        return _index_rows(x, label.reshape(-1), coefficient, f(factor), float(gamma), dx)
    total, first = 0.0, block.columns.start
    for n, row in enumerate(range(block.rows.start, block.rows.stop)):
        weights = np.ascontiguousarray(coefficient[n], np.float32)
        total += _index_columns(
            arrays.scores[row], np.ascontiguousarray(label[n]), weights, f(factor), float(gamma), gradient[row], first
        )
    return total


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
        value = exp(x[c])
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
