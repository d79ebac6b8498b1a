"""The softmax losses of targets of the scores' shape, compiled: the formulas of softmax_loss.py, in rows and columns.

A row is a position whose channels are next to each other in memory; columns are positions that are. Exponentials are
taken without subtracting the largest score. Positions where their sum is near the ends of float32, or the loss small
beside its terms, are done again in float64.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from caffe_layers.compiled.float32 import add_exponentials, exp64, exp_of_moderate, f, function, log64, loops

_LOW, _HIGH = f(1e-26), f(1e28)
_TILE, _LONGEST, _SHORTEST = 1 << 17, 1 << 10, 1 << 7
"""Elements of a tile of columns, which is to stay in the cache, and its columns at most and at least."""


@loops
def _row(x, t, e):
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


@function
def of_targets(total, mass, weighted):
    """mass log(total) - weighted, or NaN where it is small beside its terms, or the total near the ends of float32."""
    loss = mass * log64(total) - weighted
    in_range = total > _LOW and total < _HIGH
    return loss if in_range and (mass == 0 or loss >= mass + 0.5 * abs(weighted)) else np.nan


@loops
def _gradient(e, t, scale, weight):
    for c in range(len(e)):
        e[c] = e[c] * scale - t[c] * weight


@loops
def _exact_row(x, t, weight, gradient):
    """The loss of a position in float64, by way of the largest score, and weight x the gradient written."""
    largest, tail, weighted, mass = x[0], 0.0, 0.0, 0.0
    at = 0
    for c in range(len(x)):
        if x[c] > largest:
            largest, at = x[c], c
    for c in range(len(x)):
        below = np.float64(largest) - np.float64(x[c])
        tail += exp64(-below) if c != at else 0.0
        weighted += np.float64(t[c]) * below
        mass += np.float64(t[c])
    weight /= 1 + tail
    for c in range(len(x)):
        e = exp64(np.float64(x[c]) - np.float64(largest))
        # The sum is 1 + tail: with the two apart, p_t - t cancels only where both are meant.
        gradient[c] = f(((e * mass - t[c]) - t[c] * tail) * weight)
    return mass * math.log1p(tail) + weighted


@loops
def _rows(x, t, coefficient, factor, by_number, gradient):
    """x, t and gradient are n x C, the coefficient of length n; ``by_number`` divides each row by its number of t."""
    result = 0.0
    for n in range(len(x)):
        total, mass, weighted, number, bad = _row(x[n], t[n], gradient[n])
        if bad > f(0) or not mass < _HIGH:
            return np.nan
        weight = coefficient[n] / max(number, f(1)) if by_number else coefficient[n]
        loss = of_targets(np.float64(total), np.float64(mass), np.float64(weighted))
        if loss == loss:
            _gradient(gradient[n], t[n], f(weight * factor) * mass / total, f(weight * factor))
        else:
            loss = _exact_row(x[n], t[n], weight * factor, gradient[n])
        result += weight * loss
    return result


@loops
def _add_targets(x, t, mass, weighted):
    for j in range(len(x)):
        mass[j] += t[j]
        weighted[j] += t[j] * x[j]


@loops
def _add_numbers(t, number, bad):
    for j in range(len(t)):
        number[j] += f(1) if t[j] > f(0) else f(0)
        bad[j] += f(1) if t[j] < f(0) else f(0)


@loops
def _column_gradients(e, t, scale, weight, gradient):
    for j in range(len(e)):
        gradient[j] = e[j] * scale[j] - t[j] * weight[j]


@loops
def _columns(x, t, coefficient, factor, by_number, gradient, first, first_of_t):
    """x, t and gradient are C x inner; the coefficient is that of the columns from ``first`` on, of those of t."""
    result = 0.0
    size = max(_SHORTEST, min(_LONGEST, _TILE // len(x)))
    e, sums = np.empty((len(x), size), np.float32), np.empty((5, size), np.float32)
    for start in range(0, len(coefficient), size):
        n = min(size, len(coefficient) - start)
        columns = slice(first + start, first + start + n)
        columns_of_t = slice(first_of_t + start, first_of_t + start + n)
        sums[:] = f(0)
        total, mass, weighted, number, bad = sums[0, :n], sums[1, :n], sums[2, :n], sums[3, :n], sums[4, :n]
        for c in range(len(x)):
            add_exponentials(x[c, columns], e[c, :n], total)
            _add_targets(x[c, columns], t[c, columns_of_t], mass, weighted)
            _add_numbers(t[c, columns_of_t], number, bad)
        for j in range(n):
            if bad[j] > f(0) or not mass[j] < _HIGH:
                return np.nan
            weight = coefficient[start + j] / max(number[j], f(1)) if by_number else coefficient[start + j]
            loss = of_targets(np.float64(total[j]), np.float64(mass[j]), np.float64(weighted[j]))
            # What the sums are no longer needed for: how the gradient is scaled, and which columns it is not for.
            bad[j] = f(0) if loss == loss else f(1)
            total[j], mass[j] = f(weight * factor) * mass[j] / total[j], f(weight * factor)
            result += weight * loss if loss == loss else 0.0
            number[j] = f(weight)
        for c in range(len(x)):
            _column_gradients(e[c, :n], t[c, columns_of_t], total, mass, gradient[c, columns])
        for j in range(n):
            if bad[j] > f(0):
                weight, at, at_of_t = np.float64(number[j]), first + start + j, first_of_t + start + j
                result += weight * _exact_row(x[:, at], t[:, at_of_t], weight * factor, gradient[:, at])
    return result


@loops
def _rows_of_columns(x, t, coefficient, factor, by_number, gradient, first, first_of_t):
    """x and gradient are outer x C x inner, and so is t of a part of them; the coefficient is n x s."""
    result = 0.0
    for n in range(len(coefficient)):
        x_row, t_row, gradient_row = x[first[0] + n], t[first_of_t[0] + n], gradient[first[0] + n]
        result += _columns(x_row, t_row, coefficient[n], factor, by_number, gradient_row, first[1], first_of_t[1])
    return result


def in_rows_or_columns(do_rows, do_columns, arrays, block, target, first_of_target, coefficient, factor, by_number):
    """The sum of coefficient x loss of a block, as positionwise/losses.py wants it; not finite where numpy is to do it.

    That is where a score or target is not a finite number, or a target below 0. ``target`` is C-contiguous, and the
    block begins at that row and column of it.
    """
    rows, columns = block
    shape = rows.stop - rows.start, columns.stop - columns.start
    coefficient = np.ascontiguousarray(np.broadcast_to(coefficient, shape), np.float64)
    x, dx, factor = arrays.scores, arrays.gradient, float(factor)
    if arrays.layout.inner == 1:
        t = target[first_of_target[0] : first_of_target[0] + shape[0]]
        x, t, dx = (array.reshape(-1, arrays.layout.channels) for array in (x[rows], t, dx[rows]))
        return do_rows(x, t, coefficient.reshape(-1), factor, by_number, dx)
    return do_columns(x, target, coefficient, factor, by_number, dx, (rows.start, columns.start), first_of_target)


dense_block = partial(in_rows_or_columns, _rows, _rows_of_columns)
