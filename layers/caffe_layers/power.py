"""The modulating power of the focal losses: base ** exponent without a call of pow where multiplications do."""

from __future__ import annotations

import numpy as np


def power(base, exponent):
    """``base ** exponent`` of an array of numbers, 0 or more, with 0 ** 0 = 1; keeps the dtype."""
    if exponent == 0:
        return np.ones_like(base)
    if exponent == 0.5:
        return np.sqrt(base)
    if exponent in (1, 2, 3, 4):
        result = base
        for _ in range(int(exponent) - 1):
            result = result * base
        return result
    return np.power(base, base.dtype.type(exponent))


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
