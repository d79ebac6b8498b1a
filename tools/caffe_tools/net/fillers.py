"""Caffe's weight fillers, seeded.

Source: Caffe include/caffe/filler.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.prototxt.fields import Values


def fill(shape: Sequence[int], filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    """A float32 array of ``shape`` as ``filler`` says.

    Raises NetError for a filler that Caffe does not have, and for values or a shape that it does not take.
    """
    check(filler, where)
    return np.asarray(FILLERS[filler.type](tuple(shape), filler, random, where), np.float32).reshape(shape)


def check(filler: Values, where: str) -> None:
    """NetError for a filler that Caffe would not make, whatever it is to fill."""
    if filler.type not in FILLERS:
        raise NetError(f"{where}: unknown filler type {filler.type!r}: Caffe has {', '.join(FILLERS)}")
    if filler.sparse != -1 and (filler.type != "gaussian" or filler.sparse < -1):
        raise NetError(f"{where}: sparse {filler.sparse} must be 0 or more, and goes with the gaussian filler alone")


def _constant(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    return np.full(shape, filler.value)


def _uniform(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    if not -math.inf < filler.min <= filler.max < math.inf:
        raise NetError(f"{where}: the uniform filler's min {filler.min:g} must not be above its max {filler.max:g}")
    return random.uniform(filler.min, filler.max, shape)


def _gaussian(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    if not filler.std > 0:
        raise NetError(f"{where}: the gaussian filler's std {filler.std:g} must be above 0")
    values = random.normal(filler.mean, filler.std, shape)
    if filler.sparse >= 0:
        # each output keeps `sparse` inputs on average
        values *= random.random(shape) < filler.sparse / max(shape[0] if shape else 1, 1)
    return values


def _positive_unitball(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    values = random.random(shape)
    return values / values.sum(axis=tuple(range(1, len(shape))), keepdims=True)


def _fan(shape: tuple, filler: Values) -> float:
    count = math.prod(shape)
    fan_in = count / max(shape[0], 1) if shape else count
    fan_out = count / max(shape[1], 1) if len(shape) > 1 else count
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[filler.variance_norm] or 1


def _xavier(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    bound = math.sqrt(3 / _fan(shape, filler))
    return random.uniform(-bound, bound, shape)


def _msra(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    return random.normal(0, math.sqrt(2 / _fan(shape, filler)), shape)


def _bilinear(shape: tuple, filler: Values, random: np.random.Generator, where: str) -> np.ndarray:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise NetError(f"{where}: the bilinear filler needs 4 axes and a square kernel, not the shape {shape}")
    factor = math.ceil(shape[3] / 2)
    ramp = 1 - np.abs(np.arange(shape[3]) - (shape[3] - 1) / 2) / factor
    return np.broadcast_to(np.outer(ramp, ramp), shape)


FILLERS: dict[str, Callable[[tuple, Values, np.random.Generator, str], np.ndarray]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
