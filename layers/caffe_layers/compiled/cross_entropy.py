"""The cross-entropy of probabilities, compiled: the formulas of cross_entropy.py, for one position or element."""

from __future__ import annotations

from functools import partial

import numpy as np

from caffe_layers.compiled.float32 import f, log, loops
from caffe_layers.compiled.targets import in_rows_or_columns

_FLOOR = f(1e-20)
_TILE = 1024
"""Positions of a tile."""


@loops
def _positions(p, coefficient, factor, slope):
    """The sum of coefficient x log p, and the slopes written."""
    total = f(0)
    for j in range(len(p)):
        floored = _FLOOR if p[j] < _FLOOR else p[j]
        # The last term is 0, but NaN where the probability is infinite or NaN, for which there is no log here.
        total += coefficient[j] * (log(floored) + f(0) * floored)
        slope[j] = -factor * coefficient[j] / floored
    return total


@loops
def _labels_of_rows(p, label, coefficient, factor, gradient):
    """p and gradient are n x C, label and coefficient of length n."""
    total = 0.0
    of_label, slope = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for start in range(0, len(p), _TILE):
        n = min(_TILE, len(p) - start)
        gradient[start : start + n] = f(0)
        for j in range(n):
            of_label[j] = p[start + j, label[start + j]]
        total -= np.float64(_positions(of_label[:n], coefficient[start : start + n], factor, slope[:n]))
        for j in range(n):
            gradient[start + j, label[start + j]] = slope[j]
    return total


@loops
def _labels_of_columns(p, label, coefficient, factor, gradient, first_row, first_column):
    """p and gradient are outer x C x inner; label and coefficient are those of a block, n x s."""
    total = 0.0
    rows, s = label.shape
    of_label, slope = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for j in range(rows):
        p_row, gradient_row = p[first_row + j], gradient[first_row + j]
        for start in range(0, s, _TILE):
            n, first = min(_TILE, s - start), first_column + start
            named = label[j, start : start + n]
            for c in range(len(p_row)):
                gradient_row[c, first : first + n] = f(0)
            for k in range(n):
                of_label[k] = p_row[named[k], first + k]
            weights = coefficient[j, start : start + n]
            total -= np.float64(_positions(of_label[:n], weights, factor, slope[:n]))
            for k in range(n):
                gradient_row[named[k], first + k] = slope[k]
    return total


@loops
def _row(p, t, weight, gradient):
    """(sum_c t_c log p_c, how many targets are below 0), and the gradient written."""
    total, bad = f(0), f(0)
    for c in range(len(p)):
        floored = _FLOOR if p[c] < _FLOOR else p[c]
        total += t[c] * log(floored) + f(0) * floored
        gradient[c] = -weight * t[c] / floored
        bad += f(1) if t[c] < f(0) else f(0)
    return total, bad


@loops
def _rows(p, t, coefficient, factor, by_number, gradient):
    """p, t and gradient are n x C, the coefficient of length n; ``by_number`` divides each row by its number of t."""
    result = 0.0
    for n in range(len(p)):
        weight = coefficient[n] / max(np.count_nonzero(t[n]), 1) if by_number else coefficient[n]
        total, bad = _row(p[n], t[n], f(weight * factor), gradient[n])
        if bad > f(0):
            return np.nan
        result -= weight * np.float64(total)
    return result


@loops
def _add_number(t, number):
    for j in range(len(t)):
        number[j] += f(1) if t[j] > f(0) else f(0)


@loops
def _channel(p, t, weight, factor, gradient):
    """The same for one channel of columns, with sum_j weight_j t_j log p_j."""
    total, bad = f(0), f(0)
    for j in range(len(p)):
        floored = _FLOOR if p[j] < _FLOOR else p[j]
        total += weight[j] * (t[j] * log(floored) + f(0) * floored)
        gradient[j] = -factor * weight[j] * t[j] / floored
        bad += f(1) if t[j] < f(0) else f(0)
    return total, bad


@loops
def _columns(p, t, coefficient, factor, by_number, gradient, first, first_of_t):
    """p and gradient are outer x C x inner, and so is t of a part of them; the coefficient is n x s."""
    result = 0.0
    weight = np.empty(_TILE, np.float32)
    rows, s = coefficient.shape
    for j in range(rows):
        row, row_of_t = first[0] + j, first_of_t[0] + j
        for start in range(0, s, _TILE):
            n = min(_TILE, s - start)
            columns = slice(first[1] + start, first[1] + start + n)
            columns_of_t = slice(first_of_t[1] + start, first_of_t[1] + start + n)
            weight[:] = f(0)
            if by_number:
                for c in range(p.shape[1]):
                    _add_number(t[row_of_t, c, columns_of_t], weight[:n])
            for k in range(n):
                weight[k] = f(coefficient[j, start + k] / max(weight[k], f(1)))
            for c in range(p.shape[1]):
                t_part, gradient_part = t[row_of_t, c, columns_of_t], gradient[row, c, columns]
                total, bad = _channel(p[row, c, columns], t_part, weight[:n], f(factor), gradient_part)
                if bad > f(0):
                    return np.nan
                result -= np.float64(total)
    return result


def index_block(arrays, block, label, coefficient, factor):
    """The sum of coefficient x loss of a block, for positionwise/losses.py; not finite where numpy is to do it."""
    rows, columns = block
    if arrays.layout.inner == 1:
        p, dp = arrays.scores[rows, :, 0], arrays.gradient[rows, :, 0]
        return _labels_of_rows(p, label.reshape(-1), coefficient.reshape(-1), f(factor), dp)
    first = rows.start, columns.start
    return _labels_of_columns(arrays.scores, label, coefficient, f(factor), arrays.gradient, *first)


dense_block = partial(in_rows_or_columns, _rows, _columns)
