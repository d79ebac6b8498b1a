"""The sigmoid losses, compiled: the formulas of sigmoid_cross_entropy.py and sigmoid_focal.py for one element."""

from __future__ import annotations

import numpy as np

from caffe_layers.compiled.float32 import (
    exp64,
    exp_of_negative,
    f,
    function,
    log1p64,
    log1p_of_fraction,
    loops,
    power,
    power64,
)

_CHUNK = 1024
_ONES = np.ones(_CHUNK, np.float32)
_TINY = np.finfo(np.float32).tiny
_BITS_OF_ONE = f(1).view(np.uint32)


@function
def plain_cross_entropy(x, t):
    """(loss, dloss/d|x|) where pos_weight is 1"""
    distance = abs(x)
    e = exp_of_negative(-distance)
    u = f(1) - t if x >= f(0) else t
    return log1p_of_fraction(e) + distance * u, u - e / (f(1) + e)


@function
def cross_entropy(x, t, pos_weight):
    """(loss, dloss/d|x|, and what the focal loss needs of them: u, the larger and the smaller one of p and 1 - p)"""
    distance = abs(x)
    e = exp_of_negative(-distance)
    larger = f(1) / (f(1) + e)
    smaller = e * larger
    above, yes, no = x >= f(0), pos_weight * t, f(1) - t
    a = no if above else yes
    b = yes if above else no
    u = no if above else t
    loss = (a + b) * log1p_of_fraction(e) + distance * a
    return loss, a * larger - b * smaller, u, larger, smaller


@function
def focal(x, t, pos_weight, gamma):
    """(loss, dloss/d|x|) for a gamma of 1 or 2"""
    loss, slope, u, larger, smaller = cross_entropy(x, t, pos_weight)
    q = smaller + u * (larger - smaller)
    modulation = power(q, gamma)
    # Where q is 0 then so is the smaller one, and their ratio is to be 1.
    ratio = (smaller + _TINY) / (q + _TINY)
    slope = modulation * (slope - gamma * (f(1) - f(2) * u) * larger * ratio * loss)
    return modulation * loss, slope


@function
def focal_of_any_gamma(x, t, pos_weight, gamma):
    """The same for any gamma above 0, in float64, as the power multiplies the relative error of its base."""
    distance, t = np.float64(abs(x)), np.float64(t)
    e = exp64(-distance)
    larger = 1 / (1 + e)
    smaller = e * larger
    above, yes, no = x >= f(0), pos_weight * t, 1 - t
    a = no if above else yes
    b = yes if above else no
    u = no if above else t
    loss = (a + b) * log1p64(e) + distance * a
    q = smaller + u * (larger - smaller)
    modulation = power64(q, gamma)
    slope = modulation * (a * larger - b * smaller - gamma * (1 - 2 * u) * larger * (smaller / q) * loss)
    return modulation * loss, f(slope)


@function
def outside(t):
    """0 for t in [0, 1], else 1, also for -0: read as integers, the bits of all other floats are above those of 1."""
    return f(1) if f(t).view(np.uint32) > _BITS_OF_ONE else f(0)


@loops
def _plain_cross_entropies(x, t, weight, gradient):
    total, bad = f(0), f(0)
    for j in range(len(x)):
        loss, slope = plain_cross_entropy(x[j], t[j])
        slope *= weight
        gradient[j] = slope if x[j] >= f(0) else -slope
        total += loss
        bad += outside(t[j])
    return total * weight, bad


# Three loops of one shape: with a branch in it the loop has no vector instructions, and numba keeps no function on disk
# that another has made.
@loops
def _cross_entropies(x, t, pos_weight, weight, of_no, of_yes_more, gradient):
    total, bad = f(0), f(0)
    for j in range(len(x)):
        loss, slope, _, _, _ = cross_entropy(x[j], t[j], pos_weight[j])
        w = weight[j] * (of_no + of_yes_more * t[j])
        gradient[j] = w * (slope if x[j] >= f(0) else -slope)
        total += w * loss
        bad += outside(t[j])
    return total, bad


@loops
def _focals(x, t, pos_weight, weight, of_no, of_yes_more, gradient, gamma):
    total, bad = f(0), f(0)
    for j in range(len(x)):
        loss, slope = focal(x[j], t[j], pos_weight[j], gamma)
        w = weight[j] * (of_no + of_yes_more * t[j])
        gradient[j] = w * (slope if x[j] >= f(0) else -slope)
        total += w * loss
        bad += outside(t[j])
    return total, bad


@loops
def _focals_of_any_gamma(x, t, pos_weight, weight, of_no, of_yes_more, gradient, gamma):
    total, bad = 0.0, f(0)
    for j in range(len(x)):
        loss, slope = focal_of_any_gamma(x[j], t[j], pos_weight[j], gamma)
        w = weight[j] * (of_no + of_yes_more * t[j])
        gradient[j] = w * (slope if x[j] >= f(0) else -slope)
        total += w * loss
        bad += outside(t[j])
    return total, bad


@loops
def _sum(x, t, pos_weight, weight, of_no, of_yes_more, gradient, gamma, ones):
    """The sum of the losses of flat arrays; NaN where a target is out of range. An empty array stands for ones."""
    total = 0.0
    plain = gamma == 0 and of_yes_more == 0 and len(weight) == 0 and len(pos_weight) == 0
    for start in range(0, len(x), _CHUNK):
        end = min(start + _CHUNK, len(x))
        x_part, t_part, gradient_part = x[start:end], t[start:end], gradient[start:end]
        weights = weight[start:end] if len(weight) else ones[: end - start]
        pos_weights = pos_weight[start:end] if len(pos_weight) else ones[: end - start]
        if plain:
            part, bad = _plain_cross_entropies(x_part, t_part, of_no, gradient_part)
        elif gamma == 0:
            part, bad = _cross_entropies(x_part, t_part, pos_weights, weights, of_no, of_yes_more, gradient_part)
        elif gamma == 1 or gamma == 2:
            part, bad = _focals(x_part, t_part, pos_weights, weights, of_no, of_yes_more, gradient_part, f(gamma))
        else:
            part, bad = _focals_of_any_gamma(
                x_part, t_part, pos_weights, weights, of_no, of_yes_more, gradient_part, gamma
            )
        total += np.float64(part)
        if bad > f(0):
            return np.nan
    return total


def block(x, t, pos_weight, weight, alpha, gradient, workspace, gamma):
    """The sum of the losses of a block, as elementwise/losses.py wants it: weight x alpha_t x loss.

    It is not finite where the numpy engine has to do the block: for a target out of range, a NaN, or too large a loss.
    """
    scalar = f(1)
    if not isinstance(weight, np.ndarray):
        weight, scalar = None, f(weight)
    result = gradient
    if not gradient.flags.c_contiguous:
        x, t = np.ascontiguousarray(x), np.ascontiguousarray(t)
        result = workspace.array("contiguous gradient", x.shape, x.dtype)
    total = _sum(
        x.reshape(-1),
        t.reshape(-1),
        _flat(pos_weight, x),
        _flat(weight, x),
        scalar * f(1 if alpha is None else 1 - alpha),
        scalar * f(0 if alpha is None else 2 * alpha - 1),
        result.reshape(-1),
        float(gamma),
        _ONES,
    )
    if result is not gradient:
        gradient[...] = result
    return total


_NONE = np.empty(0, np.float32)


def _flat(weights, x):
    """Weights that broadcast with x (or None for ones) as a flat array."""
    if weights is None:
        return _NONE
    return np.ascontiguousarray(np.broadcast_to(np.asarray(weights, np.float32), x.shape)).reshape(-1)
