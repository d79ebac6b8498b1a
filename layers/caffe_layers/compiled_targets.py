"""The softmax losses of targets of the scores' shape, compiled: the formulas of softmax_loss.py for one position.

The channels are next to each other in memory. Exponentials are taken without subtracting the largest score, but for
positions where their sum is near the ends of float32.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers.compiled_math import exp_of_moderate, exp_of_negative, f, function, loops

_LOW, _HIGH = f(1e-26), f(1e28)


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


@loops
def _far_row(x, e):
    """Write the exponentials of a row below its largest score, and give their sum."""
    largest = x[0]
    for c in range(len(x)):
        largest = x[c] if x[c] > largest else largest
    total = f(0)
    for c in range(len(x)):
        value = exp_of_negative(f(np.float64(x[c]) - np.float64(largest)))
        e[c] = value
        total += value
    return total


@function
def of_targets(total, mass, weighted):
    """mass log(total) - weighted, or NaN where it is small beside its terms."""
    loss = mass * math.log(total) - weighted
    return np.nan if mass > 0 and loss < mass + 0.5 * abs(weighted) else loss


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
def _gradient(e, t, scale, weight):
    for c in range(len(e)):
        e[c] = e[c] * scale - t[c] * weight


@loops
def _rows(x, t, coefficient, factor, by_number, gradient):
    """x, t and gradient are n x C, the coefficient of length n; ``by_number`` divides each row by its number of t."""
    result = 0.0
    for n in range(len(x)):
        total, mass, weighted, number, bad = _row(x[n], t[n], gradient[n])
        if bad > f(0) or not mass < _HIGH:
            return np.nan
        if total > _LOW and total < _HIGH:
            loss = of_targets(np.float64(total), np.float64(mass), np.float64(weighted))
        else:
            total, loss = _far_row(x[n], gradient[n]), np.nan
        if loss != loss:
            loss = _exactly(x[n], t[n])
        weight = coefficient[n] / max(number, f(1)) if by_number else coefficient[n]
        result += weight * loss
        weight = f(weight * factor)
        _gradient(gradient[n], t[n], weight * mass / total, weight)
    return result


def dense_block(arrays, block, target, coefficient, factor, by_number):
    """The sum of coefficient x loss of a block, as positionwise.py wants it; not finite where numpy is to do it.

    That is where a score or target is not a finite number, or a target below 0.
    """
    x, t, dx = (
        array.reshape(-1, arrays.layout.channels)
        for array in (arrays.scores[block.rows], target, arrays.gradient[block.rows])
    )
    coefficient = np.ascontiguousarray(np.broadcast_to(coefficient, (len(x), 1)).reshape(-1), np.float64)
    return _rows(x, t, coefficient, factor, by_number, dx)
