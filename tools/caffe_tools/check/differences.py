"""Derivatives of a function of an array by differences, and how exact they are.

The function may be rounded (a layer may compute in float32) and may have kinks. A small step makes much of rounding, a
large one much of curvature: so the derivative is taken at many steps, each with a bound of its error, and the best one
counts, unless a smaller step shows that a kink lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEP = 1e-5
LADDER = [1.6 * 4.0**-k for k in range(13)]
FEWEST = 3
DRAWN, DEGREE = 15, 3
FEW = 32

Function = Callable[[], float]
"""Its value as the array stands."""


@dataclass(frozen=True)
class Derivative:
    value: float
    bound: float
    """What it may be off by."""


def central_difference(data: np.ndarray, element: int, function: Function, step: float = STEP) -> float:
    """(f(x + h) − f(x − h)) / 2h; h is relative to x where that is above 1."""
    value, step = data[element], step * max(1.0, abs(data[element]))
    data[element] = value + step
    above = function()
    data[element] = value - step
    below = function()
    data[element] = value
    return (above - below) / (2 * step)


def exact_derivative(data: np.ndarray, element: int, function: Function, roughness: float, worst: float) -> Derivative:
    """Richardson's extrapolation, at the step whose bound is least; ``roughness`` is the function's rounding. Steps at
    which that alone makes more than ``worst`` are left out."""
    ladder = [step for i, step in enumerate(LADDER) if i < FEWEST or 2.2 * roughness <= worst * step]
    rough = [central_difference(data, element, function, step) for step in ladder]
    steps = [
        Derivative((16 * small - large) / 15, abs(large - small) / 3 + 2.2 * roughness / step)
        for large, small, step in zip(rough, rough[1:], ladder[1:], strict=False)
    ]
    known = [(i, one) for i, one in enumerate(steps) if np.isfinite(one.value)]
    if not known:
        return Derivative(float(rough[-1]), np.inf)
    place, best = min(known, key=lambda pair: pair[1].bound)
    while True:
        refuting = [(i, one) for i, one in known if i > place and abs(one.value - best.value) > one.bound + best.bound]
        if not refuting:
            return best
        place, best = min(refuting, key=lambda pair: pair[1].bound)


def sides(data: np.ndarray, element: int, function: Function) -> tuple[float, float] | None:
    """The derivatives to the left and to the right, in order of size; None where they are none or the same."""
    value, here = data[element], function()
    slopes = []
    for step in (1e-6, 2.5e-7):
        pair = []
        for sign in (-1, 1):
            change = sign * step * max(1.0, abs(value))
            data[element] = value + change
            pair.append((function() - here) / change)
        slopes.append(pair)
    data[element] = value
    coarse, fine = np.array(slopes)
    apart = abs(fine[1] - fine[0])
    if not np.isfinite(apart) or np.abs(coarse - fine).max() > 1e-2 * apart:
        return None
    return float(fine.min()), float(fine.max())


def roughness(
    data: np.ndarray, elements: np.ndarray, function: Callable[[], np.ndarray | float], random: np.random.Generator
) -> float:
    """How far a function's values lie off a smooth curve, along a short line through some of the elements.

    A kink on the line would count as well; on a line of a tenth it would count for less, rounding for as much: the
    lesser of the two.
    """
    elements = elements[:FEW]
    kept = data[elements].copy()
    line = random.choice((-1.0, 1.0), elements.size) * np.maximum(1, np.abs(kept)) / np.sqrt(elements.size)
    found = []
    for length in (1e-5, 1e-6):
        places = random.uniform(-1, 1, DRAWN)
        found_values = []
        for place in places:
            data[elements] = kept + length * place * line
            found_values.append(np.ravel(function()))
        data[elements] = kept
        curve = np.vander(places, DEGREE + 1)
        values = np.array(found_values)
        if not np.isfinite(values).all():
            return np.inf
        centred = values - values.mean(axis=0)
        left = centred - curve @ np.linalg.lstsq(curve, centred, rcond=None)[0]
        found.append(float(np.abs(left).max(initial=0)) * np.sqrt(DRAWN / (DRAWN - DEGREE - 1)))
    return min(found)
