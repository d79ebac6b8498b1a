"""What a graph may compute in place of the loss that it should: the table that the referee tries.

A *reading* is another sum (another option of the layer, or a known mistake), a *scale* (scales.py) another factor of it
(a divisor, a sign, a loss weight). A reading and a scale together are one candidate; each applies to the loss, to the
gradient or to both, since exporters get one right and the other wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from caffe_layers.params import Parameter, ValueRefused
from caffe_tools.referee import wrong_sums
from caffe_tools.referee.departures import AS_DEFINED, Reading, with_fields, with_params
from caffe_tools.referee.loss_formulas import Question, formula
from caffe_tools.referee.numerics import numerics
from caffe_tools.referee.sides import sides


def readings(question: Question, constants: Collection[float] = ()) -> Iterator[Reading]:
    """The readings that make sense for the question, the right one first, likelier ones before others; ``constants``
    are small numbers that the graph has, which may be its epsilons."""
    yield AS_DEFINED
    if question.layer.family:
        yield from _of_the_family(question, constants)
        yield from numerics(question, constants)
        yield from _gradients(question)
    else:
        yield from _other_parameters(question)


def _of_the_family(question: Question, constants: Collection[float]) -> Iterator[Reading]:
    params = question.params
    if params.get("alpha") is not None:
        yield from _alpha(question)
    if params.get("gamma"):
        yield from _gamma(question)
    yield from _weights(question)
    if params["ignore_label"] is not None:
        yield from _ignored(question)
    if params.get("label_smoothing"):
        yield from _smoothing(question)
    if "label_smoothing" in params:
        yield from _other_smoothing(question, constants)
    yield from _targets(question)
    yield from _background(question)
    yield from _activation(question)
    if question.is_sigmoid:
        yield from sides(question)


WITHOUT_WEIGHTS = Reading(
    "weights-left-out",
    "the weights (bottom 2) were left out",
    lambda question: formula(replace(question, weights=None)).sum_and_gradient(),
)


def _other_parameters(question: Question) -> Iterator[Reading]:
    """What any loss may do otherwise: have another value of a parameter, count what is ignored, weigh nothing."""
    for parameter in question.layer.parameters:
        if parameter.name not in ("normalization", "normalize"):
            for value in _other_values(parameter, question.params[parameter.name]):
                text = f"{value:g}" if isinstance(value, float) else str(value)
                says = f"{parameter.name} were {text}"
                yield with_params(f"{parameter.name}={text}", says, **{parameter.name: value})
    if question.weights is not None:
        yield WITHOUT_WEIGHTS
    yield from _ignored_as_others(question)


def _other_values(parameter: Parameter, own: Any) -> Iterator[Any]:
    """The parameter's default, other choices, and numbers that are likely mistaken for its own."""
    numbers: list = [0, 1, 2, 3, 0.5, 1.5]
    if isinstance(own, (int, float)):
        numbers += [own + 1, own - 1, 2 * own, own / 2]
    tried = [own]
    for value in (parameter.default, *parameter.choices, None, True, False, *numbers):
        try:
            accepted = parameter.accept(value)
        except ValueRefused:
            continue
        if accepted not in tried:
            tried.append(accepted)
            yield accepted


# Readings -------------------------------------------------------------------------------------------------------------


def _alpha(question: Question) -> Iterator[Reading]:
    alpha = question.params["alpha"]
    yield with_params("alpha-left-out", "alpha were left out", alpha=None)
    if not isinstance(alpha, float):
        yield with_params("alpha-twice", "alpha were applied twice", alpha=lambda p: [a * a for a in p["alpha"]])
        return
    positive, negative = ("positives", "negatives") if question.is_sigmoid else ("foreground", "background")
    swapped = f"alpha and 1 - alpha were swapped ({positive} get {1 - alpha:g}, {negative} {alpha:g})"
    yield with_params("alpha-swapped", swapped, alpha=lambda p: 1 - p["alpha"])
    if question.is_sigmoid:
        yield with_fields(
            "alpha-on-both-signs",
            f"alpha ({alpha:g}) weighed positives and negatives alike",
            lambda f: {"beta": f.alpha},
        )
        yield with_fields(
            "alpha-on-positives-alone", "alpha weighed the positives alone (negatives get 1)", lambda f: {"beta": 1.0}
        )
    else:
        yield with_params(
            "alpha-for-every-class", f"alpha ({alpha:g}) weighed every class, the background too", background_label=None
        )
        yield with_fields(
            "alpha-on-foreground-alone",
            "alpha weighed the foreground alone (the background gets 1)",
            lambda f: {"alpha": np.where(f.alpha == 1 - alpha, 1.0, f.alpha)},
        )
        yield Reading(
            "alpha-by-channel-in-gradient",
            "the gradient weighed the label's channel by alpha and the others by 1 - alpha",
            wrong_sums.alpha_by_channel,
        )


def _gamma(question: Question) -> Iterator[Reading]:
    gamma = question.params["gamma"]
    yield with_fields(
        "gamma-term-missing-from-gradient", "gamma's term were missing from the gradient", lambda f: {"gamma_term": 0.0}
    )
    yield with_fields(
        "gamma-term-with-wrong-sign", "gamma's term had the other sign in the gradient", lambda f: {"gamma_term": -1.0}
    )
    yield with_fields(
        "gamma-term-without-gamma",
        "the factor gamma were missing from its term in the gradient",
        lambda f: {"gamma_term": 1 / f.gamma},
    )
    for other in dict.fromkeys((0.0, 1.0, gamma + 1, gamma - 1, 2.0, gamma / 2, 2 * gamma, 3.0, 0.5, 1.5)):
        if other >= 0 and other != gamma:
            says = f"gamma were {other:g}" if other else "the modulating factor (gamma) were left out"
            yield with_params(f"gamma={other:g}", says, gamma=other)
    yield Reading(
        "modulated-by-p_t", "the modulating factor were p_t^gamma, not (1 - p_t)^gamma", wrong_sums.modulated_by_p_t
    )


def _weights(question: Question) -> Iterator[Reading]:
    params = question.params
    if params["class_weight"] is not None:
        yield with_params("class_weight-left-out", "class_weight were left out", class_weight=None)
        yield with_params(
            "class_weight-twice",
            "class_weight were applied twice",
            class_weight=lambda p: [c * c for c in p["class_weight"]],
        )
        if not question.is_sigmoid:
            yield Reading(
                "class_weight-by-channel-in-gradient",
                "the gradient were weighed by the class of each channel, not by that of the label",
                wrong_sums.class_weight_by_channel,
            )
        if params.get("label_smoothing") and question.target == "index" and not question.is_sigmoid:
            yield Reading(
                "class_weight-of-the-label",
                "the label's class_weight weighed all of its smoothed target",
                wrong_sums.class_weight_of_the_label,
            )
    if params.get("pos_weight") is not None:
        yield with_params("pos_weight-left-out", "pos_weight were left out", pos_weight=None)
        yield with_fields(
            "pos_weight-twice", "pos_weight were applied twice", lambda f: {"pos_weight": f.pos_weight**2}
        )
        yield with_fields(
            "pos_weight-on-both-signs",
            "pos_weight weighed the positive and the negative term alike",
            lambda f: {"neg_weight": f.pos_weight},
        )
        yield with_fields(
            "pos_weight-on-negatives",
            "pos_weight weighed the negative term, not the positive one",
            lambda f: {"pos_weight": 1.0, "neg_weight": f.pos_weight},
        )
    if question.weights is not None:
        yield WITHOUT_WEIGHTS
        yield with_fields(
            "weights-twice", "the weights (bottom 2) were applied twice", lambda f: {"weight": f.weight**2}
        )


def _ignored(question: Question) -> Iterator[Reading]:
    yield from _ignored_as_others(question)
    if question.is_sigmoid:
        yield with_fields(
            "ignored-counted-as-negatives",
            "ignored labels were read as negatives",
            lambda f: {"counted": np.ones(f.x.shape, bool)},
        )
    else:
        yield Reading(
            "ignored-in-gradient",
            "the gradient kept the probabilities of ignored positions",
            wrong_sums.ignored_probabilities,
        )
    if question.target != "index":
        yield with_fields(
            "ignored-value-as-target",
            "ignored targets counted with their value",
            lambda f: _value_as_target(f, question.params["ignore_label"]),
        )


def _ignored_as_others(question: Question) -> Iterator[Reading]:
    for what, question_of in ignored_labels(question):
        yield Reading(
            f"ignored-counted-as-{what.replace(' ', '-')}",
            f"ignored labels were read as {what}",
            lambda q, other=question_of: formula(other(q)).sum_and_gradient(),
        )


def ignored_labels(question: Question) -> Iterator[tuple[str, Callable[[Question], Question]]]:
    """What ignored index labels may be mistaken for, and the question that would be."""
    if question.target != "index" or question.params.get("ignore_label") is None:
        return
    channels = question.channels
    background = question.params.get("background_label")
    one_more = not question.layer.background_has_a_channel and background is not None
    for label in dict.fromkeys((0, channels - 1 + one_more)):

        def other(q: Question, label: int = label) -> Question:
            labels = np.where(q.labels == q.params["ignore_label"], label, q.labels)
            return replace(q.but(ignore_label=None), labels=labels)

        yield f"class {label}", other


def _value_as_target(plain: Any, ignore_label: int) -> dict[str, Any]:
    return {"counted": np.ones(plain.x.shape, bool), "t": np.where(plain.counted, plain.t, ignore_label)}


def _smoothing(question: Question) -> Iterator[Reading]:
    channels = question.channels
    yield with_params("label_smoothing-left-out", "label_smoothing were left out", label_smoothing=0.0)

    def with_share(name: str, says: str, share: Callable[[Any], Any]) -> Reading:
        return with_fields(name, says, lambda f: {"t": (1 - f.smoothing) * f.t + share(f), "smoothing": 0.0})

    if question.is_sigmoid:
        yield with_share(
            "label_smoothing-over-classes",
            f"the target were t (1 - eps) + eps / C, with C = {channels} classes, not eps / 2",
            lambda f: f.smoothing / channels,
        )
    yield with_fields(
        "label_smoothing-by-share",
        f"the target were t (1 - eps / C) + eps / C, with C = {channels} classes",
        lambda f: {"t": (1 - f.smoothing / channels) * f.t + f.smoothing / channels, "smoothing": 0.0},
    )
    if question.is_sigmoid:
        yield with_fields(
            "label_smoothing-by-half",
            "the target were t (1 - eps / 2) + eps / 2",
            lambda f: {"t": (1 - f.smoothing / 2) * f.t + f.smoothing / 2, "smoothing": 0.0},
        )
    elif channels > 1:
        yield with_share(
            "label_smoothing-over-others",
            f"label_smoothing spread eps / {channels - 1} over the others, not eps / {channels} over all",
            lambda f: f.smoothing / (channels - 1) * (f.t == 0),
        )
    yield with_share(
        "label_smoothing-nowhere-added",
        "label_smoothing took eps from the target and gave it to no class",
        lambda f: 0.0,
    )


def _other_smoothing(question: Question, constants: Collection[float]) -> Iterator[Reading]:
    """By the numbers that the graph has, and by the usual ones."""
    own = question.params["label_smoothing"]
    numbers = [*constants, *(1 - value for value in constants), 0.1, 0.05, 0.2]
    for text in dict.fromkeys(f"{value:.4g}" for value in numbers if 1e-3 <= value <= 0.5):
        if abs(float(text) - own) > 1e-4:
            says = f"label_smoothing were {text}" + (", where it is 0" if not own else "")
            yield with_params(f"label_smoothing={text}", says, label_smoothing=float(text))


def _targets(question: Question) -> Iterator[Reading]:
    if question.is_sigmoid:
        if question.target == "multi_label":
            for name, says, hard in (
                ("targets-rounded", "targets were rounded to 0 or 1", lambda t: t >= 0.5),
                ("targets-above-0-positive", "every target above 0 were a positive", lambda t: t > 0),
                ("targets-below-1-negative", "every target below 1 were a negative", lambda t: t >= 1),
            ):
                yield with_fields(name, says, lambda f, hard=hard: {"t": hard(f.t).astype(float)})
        yield with_fields("positives-alone", "the negatives' term were missing", lambda f: {"neg_weight": 0.0})
        yield with_fields("negatives-alone", "the positives' term were missing", lambda f: {"pos_weight": 0.0})
        return
    if question.target == "multi_label":
        yield with_params(
            "target=distribution",
            "targets were not divided by the number of labels (target: distribution)",
            target="distribution",
        )
    if question.target != "index":

        def share_of_sum(f: Any) -> dict[str, Any]:
            total = f.t.sum(axis=f.axis, keepdims=True)
            return {"t": f.t / np.where(total == 0, 1, total)}

        yield with_fields("targets-divided-by-their-sum", "targets were divided by their sum", share_of_sum)
    if question.target == "distribution":
        yield with_params(
            "target=multi_label",
            "targets were divided by the number of labels (target: multi_label)",
            target="multi_label",
        )


def _background(question: Question) -> Iterator[Reading]:
    params = question.params
    channels = question.channels
    if question.is_sigmoid and question.target == "index":
        for other, rule in ((0, "label k is channel k - 1"), (channels, "label k is channel k")):
            now = channels if params["background_label"] is None else params["background_label"]
            if other != now:
                yield with_params(
                    f"background_label={other}", f"background_label were {other} ({rule})", background_label=other
                )
    if not question.is_sigmoid and isinstance(params.get("alpha"), float):
        for other in dict.fromkeys((0, channels - 1)):
            if other != params["background_label"]:
                yield with_params(f"background_label={other}", f"background_label were {other}", background_label=other)


def _activation(question: Question) -> Iterator[Reading]:
    if question.is_sigmoid:
        yield Reading("softmax-for-sigmoid", "a softmax stood in place of the sigmoid", wrong_sums.softmax_for_sigmoid)
        yield Reading("sigmoid-twice", "the sigmoid were applied twice", wrong_sums.sigmoid_twice)
    elif question.layer.scores_are_probabilities:
        yield Reading(
            "softmax-first", "a softmax were applied to the probabilities first", wrong_sums.softmax_of_probabilities
        )
        yield Reading(
            "logarithms-given", "the scores were taken for logarithms of probabilities", wrong_sums.scores_as_logarithms
        )
    else:
        yield Reading("softmax-twice", "the softmax were applied twice", wrong_sums.softmax_twice)
        yield Reading("sigmoid-for-softmax", "a sigmoid stood in place of the softmax", wrong_sums.sigmoid_for_softmax)
    if question.layer.family == "softmax":
        own = question.axis
        for axis in range(question.scores.ndim):
            if axis != own:
                yield with_params(f"axis={axis}", f"axis were {axis}, not {own}", axis=axis)
                yield with_fields(
                    f"softmax-over-axis-{axis}",
                    f"the softmax ran over axis {axis}, not {own}",
                    lambda f, axis=axis: {"over": axis},
                )


def _gradients(question: Question) -> Iterator[Reading]:
    """Mistakes that only a gradient can have; their sum is the right one."""
    if question.is_sigmoid:
        yield Reading(
            "sigmoid-derivative-twice",
            "p (1 - p) were in the gradient once too often",
            lambda q: wrong_sums.gradient_times(q, lambda p, rest: p * rest),
        )
        yield Reading(
            "gradient-by-probabilities",
            "the gradient were that by the probabilities, not by the scores",
            lambda q: wrong_sums.gradient_times(q, lambda p, rest: 1 / (p * rest)),
        )
    elif question.layer.family == "softmax":
        yield Reading(
            "gradient-without-target",
            "the target were missing from the gradient",
            lambda q: wrong_sums.gradient_of_parts(q, 1.0, 0.0),
        )
        yield Reading(
            "gradient-without-probabilities",
            "the probabilities were missing from the gradient",
            lambda q: wrong_sums.gradient_of_parts(q, 0.0, 1.0),
        )
    else:
        yield Reading(
            "gradient-by-scores",
            "the gradient were that by the scores before the softmax",
            wrong_sums.gradient_by_scores,
        )
