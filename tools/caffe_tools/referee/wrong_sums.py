"""Mistaken losses that no changed option or ingredient gives: how mistakes.py computes them.

Each gives the sum of the loss, not divided by anything, and its gradient; where a mistake is one of the gradient alone,
the sum is the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from caffe_tools.referee.loss_formulas import Question, SigmoidFormula, SoftmaxFormula, formula

SumAndGradient = tuple[float, np.ndarray]


def alpha_by_channel(question: Question) -> SumAndGradient:
    """chuanqi305/FocalLoss: its forward weighs every class by alpha, its backward the channels that are not the
    label's by 1 - alpha."""
    alpha = question.params["alpha"]
    total, gradient = formula(question.but(alpha=None)).sum_and_gradient()
    labelled = formula(question).t != 0
    return alpha * total, gradient * np.where(labelled, alpha, 1 - alpha)


def modulated_by_p_t(question: Question) -> SumAndGradient:
    f = formula(question)
    gamma = f.gamma
    if isinstance(f, SigmoidFormula):
        t, (p, rest) = f.smooth, f.probabilities
        p_t = p * t + rest * (1 - t)
        losses, slope = f.cross_entropy()
        ratio = np.divide(p * rest, p_t, out=np.maximum(p, rest), where=p_t > 0)
        slope = slope - gamma * (1 - 2 * t) * ratio * losses
        coefficient = f.coefficient() * p_t**gamma
        return float(np.sum(coefficient * losses)), coefficient * slope
    log_p = f.log_probabilities()
    p = np.exp(log_p)
    m = f.values * p**gamma * (1 + gamma * log_p)
    return float(np.sum(f.values * p**gamma * -log_p)), p * m.sum(axis=f.axis, keepdims=True) - m


def class_weight_by_channel(question: Question) -> SumAndGradient:
    plain = formula(question)
    _, gradient = replace(plain, class_weight=np.ones(())).sum_and_gradient()
    return plain.sum_and_gradient()[0], gradient * plain.class_weight


def class_weight_of_the_label(question: Question) -> SumAndGradient:
    plain = formula(question)
    labels = (plain.class_weight * plain.t).sum(axis=plain.axis, keepdims=True)
    return replace(plain, class_weight=np.ones(()), weight=plain.weight * labels).sum_and_gradient()


def ignored_probabilities(question: Question) -> SumAndGradient:
    plain = formula(question)
    total, gradient = plain.sum_and_gradient()
    ignored = ~plain.counted.any(axis=plain.axis, keepdims=True)
    return total, gradient + np.exp(plain.log_probabilities()) * ignored * plain.weight


def _shared_fields(plain: Any) -> dict[str, Any]:
    names = ("x", "axis", "t", "counted", "foreground", "weight", "class_weight", "smoothing", "gamma")
    return {name: getattr(plain, name) for name in names}


def softmax_for_sigmoid(question: Question) -> SumAndGradient:
    plain = formula(question)
    return SoftmaxFormula(**_shared_fields(plain), alpha=plain.alpha * plain.pos_weight).sum_and_gradient()


def sigmoid_for_softmax(question: Question) -> SumAndGradient:
    plain = formula(question)
    return SigmoidFormula(**_shared_fields(plain), alpha=plain.alpha, beta=plain.alpha).sum_and_gradient()


def softmax_of_probabilities(question: Question) -> SumAndGradient:
    plain = formula(question)
    return SoftmaxFormula(**_shared_fields(plain), multi_label=plain.multi_label).sum_and_gradient()


def scores_as_logarithms(question: Question) -> SumAndGradient:
    plain = formula(question)
    return float(np.sum(-plain.values * plain.x)), -plain.values


def sigmoid_twice(question: Question) -> SumAndGradient:
    plain = formula(question)
    p, rest = plain.probabilities
    total, gradient = replace(plain, x=p).sum_and_gradient()
    return total, gradient * p * rest


def softmax_twice(question: Question) -> SumAndGradient:
    plain = formula(question)
    p = np.exp(plain.log_probabilities())
    total, gradient = replace(plain, x=p).sum_and_gradient()
    return total, p * (gradient - (gradient * p).sum(axis=plain.axis, keepdims=True))


def gradient_times(question: Question, factor: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> SumAndGradient:
    plain = formula(question)
    total, gradient = plain.sum_and_gradient()
    return total, gradient * factor(*plain.probabilities)


def gradient_of_parts(question: Question, of_probabilities: float, of_target: float) -> SumAndGradient:
    plain = formula(question)
    _, m = plain.modulated()
    p = np.exp(plain.log_probabilities())
    gradient = of_probabilities * p * m.sum(axis=plain.axis, keepdims=True) - of_target * m
    return plain.sum_and_gradient()[0], gradient


def gradient_by_scores(question: Question) -> SumAndGradient:
    plain = formula(question)
    total, _ = plain.sum_and_gradient()
    return total, plain.x * plain.values.sum(axis=plain.axis, keepdims=True) - plain.values
