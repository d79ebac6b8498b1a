"""How graphs keep a logarithm finite: probabilities floored, clamped on both sides, or enlarged by an epsilon."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from caffe_tools.referee.departures import Reading, with_fields
from caffe_tools.referee.loss_formulas import Question, formula

EPSILONS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16, 1e-20)
SMALLEST = 1.17549435e-38
"""FLT_MIN"""
LARGEST = 0.2
"""No epsilon is larger."""


def numerics(question: Question, constants: Collection[float]) -> Iterator[Reading]:
    """Epsilons that the graph itself has come first."""
    own = [value for value in constants if 0 < value <= LARGEST]
    own += [1 - value for value in constants if 1 - LARGEST <= value < 1]
    epsilons = _distinct([*own, *EPSILONS])
    yield from _floors(question, [SMALLEST, *epsilons])
    for epsilon in epsilons:
        yield from _clamped(epsilon)
    for epsilon in epsilons:
        text = short(epsilon)
        yield with_fields(
            f"epsilon-added={text}",
            f"the logarithm were taken of p + {text}",
            lambda f, epsilon=epsilon: {"added": epsilon},
        )


def _floors(question: Question, epsilons: Collection[float]) -> Iterator[Reading]:
    own = formula(question).floor
    for floor in epsilons:
        if floor != own:
            text = "FLT_MIN, as in Caffe's SoftmaxWithLoss" if floor < 1e-30 else short(floor)
            yield with_fields(
                f"floor={floor:g}", f"probabilities were floored at {text}", lambda f, floor=floor: {"floor": floor}
            )


def _clamped(epsilon: float) -> Iterator[Reading]:
    """In exact numbers, and as float32 has 1 - epsilon."""
    text = short(epsilon)
    exact, rounded = 1 - epsilon, float(np.float32(1) - np.float32(epsilon))
    for highest in dict.fromkeys((rounded, exact)):
        if highest < 1:
            yield with_fields(
                f"clamped={text}",
                f"p were clamped to [{text}, 1 - {text}] (probabilities clipped at {text})",
                lambda f, highest=highest: {"clamp": (epsilon, highest)},
            )


def _distinct(numbers: Collection[float]) -> list[float]:
    """Without those that are another one in float32, which exporters keep constants in."""
    found: list[float] = []
    for number in numbers:
        nearest = float(f"{number:.3g}")
        if not any(abs(nearest - other) <= 1e-3 * other for other in found):
            found.append(nearest)
    return found


def short(number: float) -> str:
    """1e-4, not 0.0001 or 1e-04."""
    mantissa, _, exponent = f"{number:.3e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"
