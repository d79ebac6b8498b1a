"""exp, log and log1p in float32, written so that the compiler makes vector instructions of them.

NaN in gives NaN out, but for log.

Multiplications and additions may be contracted, as one rounding is better than two, but not reordered: that would undo
the splitting of the arguments.

numba recompiles a file that has changed, but not the files that call its functions: who changes this one removes the
cache (``compiled/__pycache__/*.nb*``).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

f = np.float32
i = np.int32
function: Any = numba.njit(fastmath={"contract"}, cache=True, nogil=True, error_model="numpy", forceinline=True)
"""A function of numbers, for the loops of the others: inline, as a call would cost them the vector instructions."""
loops: Any = numba.njit(fastmath={"contract", "reassoc"}, cache=True, nogil=True, error_model="numpy")
"""A function of arrays, whose sums may be taken in any order: always the same one."""

_LOG2_E = f(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = f(0.693359375), f(-2.12194440e-4)
_TO_INTEGER = 1.5 * 2**23
_E2, _E3, _E4, _E5, _E6 = f(0.5), f(0.16666576266), f(0.04166655615), f(0.008363178), f(0.00139261817)


@function
def _exp_in_parts(x, to_integer):
    """(e**r, bits) with x = k log 2 + r, by adding the constant 1.5 * 2**23 + bias, which rounds to an integer.

    The low bits of the sum are k + bias; moved to where the exponent is, they make 2**(k + bias - 127).
    """
    shifted = f(x * _LOG2_E + to_integer)
    k = shifted - to_integer
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = _E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))
    return f(1) + (r + (r * r) * p), i(shifted.view(np.int32) << i(23)).view(np.float32)


_LOWEST, _TO_RAISED, _LOWERING = f(-104), f(_TO_INTEGER + 127 + 64), f(2.0**-64)


@function
def exp_of_negative(x):
    """e**x of an x of 0 or less, within 1.1 ulp; a denormal below -87.3, and 0 below -104."""
    x = _LOWEST if x < _LOWEST else x
    p, power_of_2 = _exp_in_parts(x, _TO_RAISED)
    # In two factors, since 2**k alone may be too small for a float32.
    return p * power_of_2 * _LOWERING


_LOWEST_NORMAL, _HIGHEST_NORMAL, _TO_BIASED = f(-87.3), f(88), f(_TO_INTEGER + 127)


@function
def exp_of_moderate(x):
    """e**x within 1.1 ulp, for x from -87.3 to 88; its value at these below and above, so never 0 nor infinity."""
    x = _LOWEST_NORMAL if x < _LOWEST_NORMAL else x
    x = _HIGHEST_NORMAL if x > _HIGHEST_NORMAL else x
    p, power_of_2 = _exp_in_parts(x, _TO_BIASED)
    return p * power_of_2


_U = tuple(
    f(c)
    for c in (1.0, -0.4999989271, 0.3332971036, -0.2495161593, 0.1966327429, -0.1526966691, 0.1054362357)
    + (-0.0563736148, 0.0195425265, -0.003176057)
)
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8, _U9 = _U


@function
def log1p_of_fraction(x):
    """log(1 + x) of x in [0, 1], within 1 ulp."""
    p = _U5 + x * (_U6 + x * (_U7 + x * (_U8 + x * _U9)))
    p = _U1 + x * (_U2 + x * (_U3 + x * (_U4 + x * p)))
    return x + (x * x) * p


_ROOT_HALF_BITS = i(0x3F3504F3)
_OFFSET = i(0x3F800000 - 0x3F3504F3)
_MANTISSA = i(0x007FFFFF)
_L: tuple = (0.3333333135, -0.2500030696, 0.2000104487, -0.1664128155)
_L += (0.1421449632, -0.1299818307, 0.1262231916, -0.0790274366)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (f(c) for c in _L)


@function
def _log_and(u, more):
    """log(u) + more, of a normal u. u = 2**k (1 + y), with 1 + y from sqrt(1/2) to sqrt(2)."""
    bits = i(f(u).view(np.int32) + _OFFSET)
    k = f(i(bits >> i(23)) - i(127))
    mantissa = i(i(bits & _MANTISSA) + _ROOT_HALF_BITS)
    y = mantissa.view(np.float32) - f(1)
    y3 = _L4 + y * (_L5 + y * (_L6 + y * _L7))
    y3 = _L0 + y * (_L1 + y * (_L2 + y * (_L3 + y * y3)))
    square = y * y
    small = more + k * _LN2_LOW
    return ((small + square * (y * y3 - f(0.5))) + y) + k * _LN2_HIGH


@function
def log(x):
    """log(x) of a normal number above 0 within 2 ulp. Of infinity and NaN it is a number: who calls it looks."""
    return _log_and(f(x), f(0))


@function
def log1p(x):
    """log(1 + x) of any x, 0 or more, within 2 ulp."""
    u = f(x + f(1))
    lost_of_x, lost_of_one = x - (u - f(1)), f(1) - (u - x)
    lost = lost_of_x if x < f(1) else lost_of_one
    return _log_and(u, lost / u)


_TO_INTEGER64, _LN2 = 1.5 * 2**52, 0.6931471805599453
_OFFSET64 = np.int64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
_ROOT_HALF_BITS64, _MANTISSA64 = np.int64(0x3FE6A09E667F3BCD), np.int64(0x000FFFFFFFFFFFFF)


@function
def exp64(x):
    """e**x of a float64 within 1e-11 of itself; its value at -700 below, at 700 above."""
    x = -700.0 if x < -700.0 else x
    x = 700.0 if x > 700.0 else x
    shifted = np.float64(x * 1.4426950408889634 + _TO_INTEGER64)
    r = x - (shifted - _TO_INTEGER64) * _LN2
    p = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r / 362880)))
    p = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * p))))
    return p * np.int64((shifted.view(np.int64) + np.int64(1023)) << np.int64(52)).view(np.float64)


@function
def log64(x):
    """log(x) of a float64 above 1e-300 within 1e-12 of itself, by the series of artanh((m - 1) / (m + 1))."""
    bits = np.float64(x).view(np.int64) + _OFFSET64
    k = np.float64((bits >> np.int64(52)) - np.int64(1023))
    m = np.int64((bits & _MANTISSA64) + _ROOT_HALF_BITS64).view(np.float64)
    s = (m - 1) / (m + 1)
    z = s * s
    p = 1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * (1 / 13)))))
    return k * _LN2 + (2 * s + (2 * s * z) * p)


@function
def log1p64(x):
    """log(1 + x) of a float64, 0 or more, within 1e-11 of itself."""
    u = 1 + x
    return log64(u) + (x - (u - 1)) / u


@function
def power(base, exponent):
    """base**exponent for an exponent of 1 or 2."""
    return base * (base if exponent > f(1) else f(1))


@function
def power64(base, exponent):
    """base**exponent of a float64 above 1e-300."""
    return exp64(exponent * log64(base))


@loops
def write_exponentials(x, e):
    for j in range(len(x)):
        e[j] = exp_of_moderate(x[j])


@loops
def add_exponentials(x, e, total):
    """Write them, and add each to its place of ``total``."""
    for j in range(len(x)):
        value = exp_of_moderate(x[j])
        e[j] = value
        total[j] += value


@loops
def sum_of(values):
    total = f(0)
    for j in range(len(values)):
        total += values[j]
    return total


@loops
def largest_of(values):
    """The largest, or any where one is NaN."""
    largest = values[0]
    for j in range(len(values)):
        largest = values[j] if values[j] > largest else largest
    return largest
