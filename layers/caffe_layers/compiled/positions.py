"""The loss of one label, compiled: the formulas of softmax_loss.py and softmax_focal.py for one position.

They start from the exponentials of a position's scores, taken without subtracting the largest score. Where a sum of
them is near the ends of float32 the position is far, and done again in float64.

Who changes this file removes numba's cache, as with float32.py.
"""

from __future__ import annotations

import numpy as np

from caffe_layers.compiled.float32 import exp64, f, function, largest_of, log1p, log1p64, log64, loops, power, power64

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
def positions(others, e_t, coefficient, factor, gamma, scale):
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
def near_positions(others, e_t, coefficient, gamma, losses):
    """Write coefficient x loss, NaN where it lacks digits, and give the sum of all others."""
    _modulate(others, e_t, gamma, losses)
    total = 0.0
    for j in range(len(others)):
        loss, _, _ = of_label(others[j], e_t[j], f(gamma), losses[j])
        losses[j] = coefficient[j] * loss
        total += np.float64(losses[j]) if losses[j] == losses[j] else 0.0
    return total


@loops
def far_position(x, label, coefficient, factor, gamma, gradient):
    """coefficient x loss of one position in float64, and its gradient written. NaN where a score is not finite."""
    largest = largest_of(x)
    others = 0.0
    for c in range(len(x)):
        others += exp64(np.float64(x[c]) - np.float64(largest)) if c != label else 0.0
    below = np.float64(x[label]) - np.float64(largest)
    e_t = exp64(below)
    total = others + e_t
    if not total < np.inf:
        return np.nan
    loss = log1p64(others / e_t) if others < 1 else log64(total) - below
    q = max(others / total, 1e-300)
    modulation = power64(q, gamma)
    scale = np.float64(coefficient) * factor / total * modulation * (1 + gamma * (e_t / total) * (loss / q))
    for c in range(len(x)):
        gradient[c] = f(exp64(np.float64(x[c]) - np.float64(largest)) * scale)
    gradient[label] = f(-others * scale)
    return np.float64(coefficient) * modulation * loss
