"""The modulating power of the focal losses: base ** exponent without a call of pow where multiplications do."""

from __future__ import annotations

import numpy as np


def power(base, exponent, out=None):
    """``base ** exponent`` of an array of numbers, 0 or more, with 0 ** 0 = 1; keeps the dtype."""
    if exponent == 0.5:
        return np.sqrt(base, out=out)
    if exponent in (2, 3, 4):
        result = np.multiply(base, base, out=out)
        for _ in range(int(exponent) - 2):
            result *= base
        return result
    if exponent == 1:
        return np.positive(base, out=out)
    return np.power(base, base.dtype.type(exponent), out=out)


def onnx_power(op, base, exponent):
    """The same in ONNX, for an exponent above 0."""
    if exponent == 0.5:
        return op.Sqrt(base)
    if exponent in (1, 2, 3, 4):
        result = base
        for _ in range(int(exponent) - 1):
            result = op.Mul(result, base)
        return result
    return op.Pow(base, exponent)
