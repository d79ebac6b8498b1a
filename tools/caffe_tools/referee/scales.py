"""What a graph may divide or multiply a loss with in place of the right divisor: the other half of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from caffe_tools.referee.departures import Departure
from caffe_tools.referee.loss_formulas import Question, formula
from caffe_tools.referee.mistakes import ignored_labels

Scale = Departure


def right_factor(question: Question) -> float:
    """1 / divisor, as the layer has it."""
    return formula(question).factor(question.mode)


def divisors(question: Question) -> Iterator[Scale]:
    """Other divisors than the layer's."""
    right = question.mode
    yield Scale("", "", right_factor, 0.0)
    order = ("NONE", "VALID", "BATCH_SIZE", "FULL", "POSITIVES", "WEIGHT")
    for mode in order:
        if mode != right:
            says = f"normalization were {mode}" if mode != "NONE" else "there were no divisor (normalization NONE)"
            yield Scale(f"normalization={mode}", says, lambda q, mode=mode: formula(q).factor(mode))
    if question.params.get("ignore_label") is not None:
        yield from _divisors_with_ignored(question, right)
    if right == "WEIGHT":
        yield Scale(
            "divisor-at-least-1",
            "the sum of weights were at least 1 as a divisor",
            lambda q: 1 / max(1.0, formula(q).count("WEIGHT")),
        )
    if question.layer.family and question.weights is not None:
        for name, what, other in (
            ("class-weights", "class weights", "weight"),
            ("weights", "weights of bottom 2", "class_weight"),
        ):
            yield Scale(
                f"divisor-by-{name}",
                f"the divisor were the sum of the {what} alone",
                lambda q, other=other: _reciprocal(replace(formula(q), **{other: np.ones(())}).count("WEIGHT")),
            )
    if question.is_sigmoid and question.target == "multi_label":
        counted = "were the positives that the divisor counts"
        for name, says, count in (
            ("positives-from-one-half", f"targets from 0.5 on {counted}", lambda t: np.count_nonzero(t >= 0.5)),
            ("positives-of-exactly-1", f"targets of exactly 1 {counted}", lambda t: np.count_nonzero(t == 1)),
            ("sum-of-targets", "the sum of the targets were the divisor, at least 1", np.sum),
        ):
            yield Scale(name, says, lambda q, count=count: 1 / max(1.0, float(count(formula(q).t))))
    if right == "POSITIVES":
        yield Scale(
            "positives-plus-1",
            "the divisor were the positives plus 1",
            lambda q: 1 / (1 + formula(q).count("POSITIVES")),
        )
    if right != "NONE":
        yield Scale("divisor-may-be-0", "the divisor could be 0", lambda q: _reciprocal(formula(q).count(q.mode)))


def _divisors_with_ignored(question: Question, mode: str) -> Iterator[Scale]:
    for what, other in ignored_labels(question):
        yield Scale(
            f"ignored-in-divisor-as-{what.replace(' ', '-')}",
            f"the divisor counted ignored positions too, as {what}",
            lambda q, other=other: formula(other(q)).factor(mode),
        )


def _reciprocal(count: float) -> float:
    return 1 / count if count else np.inf


def factors(question: Question, loss_weight: float) -> Iterator[Scale]:
    """What sums are multiplied with by mistake."""
    channels, whose = question.channels, "an anchor's" if question.is_sigmoid else "the"
    yield Scale("", "", lambda q: 1.0, 0.0)
    yield Scale("sign", "the sign were the other one", lambda q: -1.0)
    if loss_weight != 1:
        yield Scale(
            "loss_weight-applied", f"loss_weight ({loss_weight:g}) were applied once more", lambda q: loss_weight
        )
        yield Scale("loss_weight-left-out", f"loss_weight ({loss_weight:g}) were left out", lambda q: 1 / loss_weight)
    if channels > 1:
        yield Scale(
            "mean-over-classes",
            f"the sum were divided by {channels} (the mean over {whose} classes)",
            lambda q: 1 / q.channels,
        )
        yield Scale(
            "sum-over-classes",
            f"the sum were taken over the {channels} classes where a mean is right",
            lambda q: float(q.channels),
        )
    if question.mode != "NONE":
        yield Scale("divisor-twice", "the divisor were applied twice", right_factor)
    yield Scale(
        "batch-size-divided", "it were divided by the batch size besides", lambda q: 1 / max(1, q.scores.shape[0])
    )
    yield Scale("batch-size-multiplied", "it were multiplied with the batch size", lambda q: float(q.scores.shape[0]))
    yield Scale("half", "it were halved", lambda q: 0.5)
    yield Scale("double", "it were doubled", lambda q: 2.0)
    yield Scale("logarithm-to-base-2", "the logarithm were that to base 2", lambda q: 1 / np.log(2))
    yield Scale("logarithm-to-base-10", "the logarithm were that to base 10", lambda q: 1 / np.log(10))
