"""Sigmoid losses that treat one sign unlike the other: weighed on one side alone, modulated by the wrong side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from caffe_tools.referee.departures import Reading, with_fields
from caffe_tools.referee.loss_formulas import Question, formula
from caffe_tools.referee.wrong_sums import SumAndGradient

SIDES = (("positives", "negatives"), ("negatives", "positives"))


def sides(question: Question) -> Iterator[Reading]:
    """What makes sense for the parameters of the question."""
    params = question.params
    if isinstance(params.get("alpha"), float):
        yield with_fields(
            "alpha-on-negatives-alone",
            "1 - alpha weighed the negatives alone (positives get 1)",
            lambda f: {"alpha": 1.0},
        )
    if params.get("gamma"):
        yield from _modulated()
    if params["class_weight"] is not None:
        yield from _weighed("class_weight", "class_weight")
    if question.weights is not None:
        yield from _weighed("weight", "the weights (bottom 2)")


def _modulated() -> Iterator[Reading]:
    yield Reading(
        "negatives-modulated-as-positives",
        "negatives were modulated by (1 - p)^gamma, as positives are",
        lambda q: _modulated_by(q, lambda p, rest: rest, lambda p, rest: -p),
    )
    yield Reading(
        "positives-modulated-as-negatives",
        "positives were modulated by p^gamma, as negatives are",
        lambda q: _modulated_by(q, lambda p, rest: p, lambda p, rest: rest),
    )
    for side, other in SIDES:
        yield Reading(
            f"modulated-{side}-alone",
            f"the modulating factor (gamma) weighed the {side} alone ({other} get 1)",
            lambda q, side=side: _modulated_alone(q, side),
        )


def _modulated_by(
    question: Question,
    factor: Callable[[np.ndarray, np.ndarray], np.ndarray],
    slope_of_logarithm: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> SumAndGradient:
    """The factor of p and 1 - p in place of q, whatever the target; and the derivative of its logarithm."""
    f = formula(question)
    losses, slope = f.cross_entropy()
    coefficient = f.coefficient() * factor(*f.probabilities) ** f.gamma
    slope = slope + f.gamma * slope_of_logarithm(*f.probabilities) * losses
    return float(np.sum(coefficient * losses)), coefficient * slope


def _modulated_alone(question: Question, side: str) -> SumAndGradient:
    """Each element's loss in two parts, of which one is modulated; a soft target takes part in both."""
    f = formula(question)
    t, (p, rest) = f.smooth, f.probabilities
    positive = t * np.logaddexp(0, -f.x), -t * rest
    negative = (1 - t) * np.logaddexp(0, f.x), (1 - t) * p
    if side == "positives":
        positive = _times(positive, rest**f.gamma, -f.gamma * p)
    else:
        negative = _times(negative, p**f.gamma, f.gamma * rest)
    coefficient = f.coefficient()
    return float(np.sum(coefficient * (positive[0] + negative[0]))), coefficient * (positive[1] + negative[1])


def _times(
    loss: tuple[np.ndarray, np.ndarray], factor: np.ndarray, slope_of_logarithm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return factor * loss[0], factor * (loss[1] + slope_of_logarithm * loss[0])


def _weighed(field: str, name: str) -> Iterator[Reading]:
    for side, other in SIDES:
        part = "pos_weight" if side == "positives" else "neg_weight"

        def change(f: Any, part: str = part) -> dict[str, Any]:
            return {part: getattr(f, part) * getattr(f, field), field: np.ones(())}

        says = f"{name} weighed the {side} alone ({other} get 1)"
        yield with_fields(f"{field}-on-{side}-alone", says, change)
