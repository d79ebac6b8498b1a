"""One thing that a graph may do otherwise, and how the most of them are made: by a changed option of the layer, or by a
changed field of its formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from caffe_tools.referee.loss_formulas import Question, formula
from caffe_tools.referee.wrong_sums import SumAndGradient


@dataclass(frozen=True)
class Departure:
    """What a graph may do otherwise; ``says`` goes on after "agrees if"."""

    name: str
    says: str
    compute: Callable[..., Any]
    """Of a reading: the sum and its gradient, not divided by anything. Of a scale: the factor of both."""
    cost: float = 1.0


Reading = Departure
AS_DEFINED = Reading("", "", lambda question: formula(question).sum_and_gradient(), 0.0)


def with_params(name: str, says: str, **changes: Any) -> Reading:
    """The layer with other parameters; a change may be a function of the question's parameters."""

    def compute(question: Question) -> SumAndGradient:
        new = {key: value(question.params) if callable(value) else value for key, value in changes.items()}
        return formula(question.but(**new)).sum_and_gradient()

    return Reading(name, says, compute)


def with_fields(name: str, says: str, change: Callable[..., dict[str, Any]]) -> Reading:
    """The formula with other fields."""

    def compute(question: Question) -> SumAndGradient:
        plain = formula(question)
        return replace(plain, **change(plain)).sum_and_gradient()

    return Reading(name, says, compute)
