"""The softmax losses of targets of the scores' shape, compiled: the formulas of softmax_loss.py for one position.

The channels are next to each other in memory. Exponentials are taken without subtracting the largest score. Positions
where their sum is near the ends of float32, or the loss small beside its terms, are done again in float64.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers.compiled_math import exp64, exp_of_moderate, f, function, loops

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


@function
def of_targets(total, mass, weighted):
    """mass log(total) - weighted, or NaN where it is small beside its terms, or the total near the ends of float32."""
    loss = mass * math.log(total) - weighted
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
