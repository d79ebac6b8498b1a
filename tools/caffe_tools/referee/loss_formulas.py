"""The losses of ``caffe_layers`` once more, open to change: what the referee tries in place of the layer's own.

A layer computes in blocks and in one pass; here stands the plain formula of each family of losses in float64 over
arrays of the scores' shape, with every ingredient a field, so that a mistake is a changed field
(``dataclasses.replace``). Unchanged, a formula gives the layer's numbers (a test holds it to that). Arrays that hold
one value per position have 1 channel on ``axis``. A loss of no family stands for itself: it can be asked with other
parameters.

In the formulas x are the scores, t the targets before smoothing, t' after it, w the weights of bottom[2] and c the
class weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from caffe_layers import normalization
from caffe_layers.functional import FUNCTIONS
from caffe_layers.layer import LabelError
from caffe_layers.loss import LossLayer


@dataclass(frozen=True)
class Question:
    """What a loss layer is asked: its class, its parameters, and its bottoms."""

    layer: type[LossLayer]
    params: Mapping[str, Any]
    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    @property
    def target(self) -> str:
        return self.params.get("target", "index")

    @property
    def is_sigmoid(self) -> bool:
        return self.layer.family == "sigmoid"

    @property
    def axis(self) -> int:
        return self.params["axis"] % self.scores.ndim

    @property
    def channels(self) -> int:
        return self.scores.shape[self.axis]

    @property
    def mode(self) -> str:
        if "normalization" not in self.params:
            return "NONE"
        return normalization.mode(self.params, self.layer.default_normalization)

    def answer(self) -> tuple[float, np.ndarray]:
        """The layer's own loss and gradient. Raises LayerError."""
        return FUNCTIONS[self.layer](self.scores, self.labels, self.weights, **self.params)

    def but(self, **params: Any) -> Question:
        """The same with other parameters."""
        return replace(self, params={**self.params, **params})


@dataclass(frozen=True)
class Formula:
    """What all losses share: masks, weights and counts."""

    x: np.ndarray
    axis: int
    t: np.ndarray
    counted: np.ndarray
    """The elements that are not ignored."""
    foreground: np.ndarray
    """What POSITIVES counts: positions (1 channel) or elements."""
    weight: np.ndarray
    class_weight: np.ndarray
    smoothing: float
    gamma: float
    gamma_term: float = 1.0
    """A factor of the part of the gradient that comes from the modulating factor; 1 is right."""
    floor: float = 0.0
    """What probabilities are floored at in the loss, not in its gradient."""
    clamp: tuple[float, float] = (0.0, 1.0)
    """Between what probabilities are clamped; beyond, the gradient is 0."""
    added: float = 0.0
    """What is added to a probability before its logarithm is taken."""

    def sum_and_gradient(self) -> tuple[float, np.ndarray]:
        """The sum of the loss, not divided by anything, and its gradient."""
        raise NotImplementedError

    def factor(self, mode: str) -> float:
        """1 / divisor."""
        return normalization.factor(mode, self.count(mode))

    def count(self, mode: str) -> float:
        """What the normalization mode counts."""
        counts = {
            "FULL": self.positions.size,
            "VALID": np.count_nonzero(self.positions),
            "BATCH_SIZE": self.batch,
            "POSITIVES": np.count_nonzero(self.foreground),
            "WEIGHT": np.sum(self.weight * self.class_weight * self.t * self.counted),
            "NONE": 1,
        }
        return float(counts[mode])

    @property
    def positions(self) -> np.ndarray:
        """Whether each of the things that are counted is not ignored: positions, or elements."""
        raise NotImplementedError

    @property
    def batch(self) -> int:
        """What BATCH_SIZE counts."""
        raise NotImplementedError


@dataclass(frozen=True)
class SigmoidFormula(Formula):
    """Sum of w c a q^gamma B over the elements, with B = -(pos_weight t' log p + neg_weight (1 - t') log(1 - p)),
    q = p (1 - t') + (1 - p) t' and a = alpha t' + beta (1 - t')."""

    pos_weight: np.ndarray | float = 1.0
    neg_weight: np.ndarray | float = 1.0
    alpha: np.ndarray | float = 1.0
    beta: np.ndarray | float = 1.0

    @property
    def positions(self) -> np.ndarray:
        return self.counted

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    @property
    def smooth(self) -> np.ndarray:
        return (1 - self.smoothing) * self.t + self.smoothing / 2

    @property
    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """p and 1 - p."""
        return 1 / (1 + np.exp(-self.x)), 1 / (1 + np.exp(self.x))

    def cross_entropy(self) -> tuple[np.ndarray, np.ndarray]:
        """B, and its derivative by x."""
        t, (p, rest) = self.smooth, self.probabilities
        highest = -math.log(self.floor) if self.floor else np.inf
        of_p, of_rest = np.logaddexp(0, -self.x), np.logaddexp(0, self.x)
        share_p, share_rest = np.ones(()), np.ones(())
        if self.clamp != (0.0, 1.0) or self.added:
            clamped = np.clip(p, *self.clamp)
            of_p, of_rest = -np.log(clamped + self.added), -np.log(1 - clamped + self.added)
            share_p, share_rest = p / (p + self.added), rest / (rest + self.added)
        positive = np.minimum(of_p, highest) * t * self.pos_weight
        negative = np.minimum(of_rest, highest) * (1 - t) * self.neg_weight
        slope = p * share_rest * (1 - t) * self.neg_weight - rest * share_p * t * self.pos_weight
        return positive + negative, slope

    def coefficient(self) -> np.ndarray:
        t = self.smooth
        return self.counted * self.weight * self.class_weight * (self.alpha * t + self.beta * (1 - t))

    def sum_and_gradient(self) -> tuple[float, np.ndarray]:
        coefficient, t, (p, rest) = self.coefficient(), self.smooth, self.probabilities
        losses, slope = self.cross_entropy()
        if self.gamma:
            clamped = np.clip(p, *self.clamp)
            q = p * (1 - t) + rest * t if self.clamp == (0.0, 1.0) else clamped * (1 - t) + (1 - clamped) * t
            ratio = np.divide(p * rest, q, out=np.maximum(p, rest), where=q > 0)
            slope = slope + self.gamma_term * self.gamma * (1 - 2 * t) * ratio * losses
            losses, slope = q**self.gamma * losses, q**self.gamma * slope
        inside = (p > self.clamp[0]) & (p < self.clamp[1]) if self.clamp != (0.0, 1.0) else True
        return float(np.sum(coefficient * losses)), coefficient * slope * inside


@dataclass(frozen=True)
class SoftmaxFormula(Formula):
    """Sum of v_c (1 - p_c)^gamma (-log p_c) over the elements, with v = w c alpha t'; its derivative is
    p sum(m) - m with m = v (1 - p)^gamma (1 - gamma p log p / (1 - p))."""

    alpha: np.ndarray | float = 1.0
    multi_label: bool = False
    """A position without labels has no t' either."""
    over: int | None = None
    """The axis that the softmax runs over, where it is not ``axis``."""

    @property
    def positions(self) -> np.ndarray:
        return np.asarray(self.counted.any(axis=self.axis))

    @property
    def batch(self) -> int:
        return math.prod(self.x.shape[: self.axis])

    @property
    def smooth(self) -> np.ndarray:
        share = self.smoothing / self.x.shape[self.axis]
        if self.multi_label:
            share = share * (self.t != 0).any(axis=self.axis, keepdims=True)
        return (1 - self.smoothing) * self.t + share

    @property
    def values(self) -> np.ndarray:
        return self.smooth * self.counted * self.weight * self.class_weight * self.alpha

    def log_probabilities(self) -> np.ndarray:
        over = self.axis if self.over is None else self.over
        below = self.x - self.x.max(axis=over, keepdims=True)
        return below - np.log(np.exp(below).sum(axis=over, keepdims=True))

    def modulated(self) -> tuple[np.ndarray, np.ndarray]:
        """The losses of the elements, and m."""
        log_p = self.log_probabilities()
        p = np.exp(log_p)
        nll = np.minimum(-log_p, -math.log(self.floor)) if self.floor else -log_p
        logarithm, q = -log_p, -np.expm1(log_p)
        inside, share = np.ones(()), np.ones(())
        if self.clamp != (0.0, 1.0) or self.added:
            clamped = np.clip(p, *self.clamp)
            nll = logarithm = -np.log(clamped + self.added)
            q, share = 1 - clamped, p / (p + self.added)
            inside = (p > self.clamp[0]) & (p < self.clamp[1]) if self.clamp != (0.0, 1.0) else inside
        ratio = np.divide(logarithm, q, out=np.ones_like(q), where=q > 0)
        modulation = self.values * q**self.gamma
        return modulation * nll, modulation * inside * (share + self.gamma_term * self.gamma * p * ratio)

    def sum_and_gradient(self) -> tuple[float, np.ndarray]:
        losses, m = self.modulated()
        over = self.axis if self.over is None else self.over
        p = np.exp(self.log_probabilities())
        return float(np.sum(np.where(self.values != 0, losses, 0))), p * m.sum(axis=over, keepdims=True) - m


@dataclass(frozen=True)
class ProbabilityFormula(SoftmaxFormula):
    """Sum of v_c (-log max(p_c, floor)) of scores that are the probabilities p; its derivative is
    -v / max(p, floor)."""

    floor: float = 1e-20

    def sum_and_gradient(self) -> tuple[float, np.ndarray]:
        floored = np.clip(np.maximum(self.x, self.floor), *self.clamp) + self.added
        with np.errstate(divide="ignore", invalid="ignore"):
            losses = np.where(self.values != 0, -self.values * np.log(floored), 0)
            inside = (self.x >= self.clamp[0]) & (self.x <= self.clamp[1])
            return float(losses.sum()), np.where((self.values != 0) & inside, -self.values / floored, 0)


# From a question to its formula ---------------------------------------------------------------------------------------


def formula(question: Question) -> Any:
    """The formula of the layer that is asked: a Formula, or OwnFormula where it is of no family."""
    with np.errstate(all="ignore"):
        return FAMILIES[question.layer.family](question)


@dataclass(frozen=True)
class OwnFormula:
    """A loss that is of no family, by the layer itself."""

    question: Question

    def sum_and_gradient(self) -> tuple[float, np.ndarray]:
        return self._divided_by("NONE")

    def factor(self, mode: str) -> float:
        return normalization.factor(mode, self.count(mode))

    def count(self, mode: str) -> float:
        """The divisor, of what it divides; 1 where that is nothing."""
        undivided, divided = ([loss, *gradient.flat] for loss, gradient in map(self._divided_by, ("NONE", mode)))
        largest = int(np.argmax(np.abs(undivided)))
        return float(np.divide(undivided[largest], divided[largest])) if undivided[largest] else 1.0

    def _divided_by(self, mode: str) -> tuple[float, np.ndarray]:
        has_modes = "normalization" in self.question.params
        return (self.question.but(normalization=mode) if has_modes else self.question).answer()


class _Shared:
    """What is read from labels and weights alike for all losses."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.x = np.asarray(question.scores, np.float64)
        self.axis, self.channels = question.axis, question.channels
        self.position_shape = (*self.x.shape[: self.axis], 1, *self.x.shape[self.axis + 1 :])
        self.multi_label = not question.is_sigmoid and question.target == "multi_label"
        self.is_background = np.zeros(self.x.shape, bool)
        if question.target == "index":
            self._read_index()
        else:
            self._read_dense()

    def _read_index(self) -> None:
        params = self.question.params
        background, ignore = params["background_label"], params["ignore_label"]
        is_shifted = self.question.is_sigmoid and background is not None  # the background has no channel
        label = np.asarray(self.question.labels).reshape(self.position_shape).astype(np.int64)
        counted = np.ones(label.shape, bool) if ignore is None else label != ignore
        if ((label < 0) | (label >= self.channels + is_shifted))[counted].any():
            raise LabelError(f"labels are not all in 0 to {self.channels + is_shifted - 1}")
        self.foreground = counted if background is None else counted & (label != background)
        named = self.foreground if is_shifted else counted
        channel = np.where(named, label - (is_shifted and label > background), 0)
        self.t = np.zeros(self.x.shape)
        np.put_along_axis(self.t, channel, named.astype(float), axis=self.axis)
        self.counted = np.broadcast_to(counted, self.x.shape)
        if background is not None and not self.question.is_sigmoid:
            np.moveaxis(self.is_background, self.axis, 0)[background] = True

    def _read_dense(self) -> None:
        params = self.question.params
        values = np.asarray(self.question.labels, np.float64).reshape(self.x.shape)
        ignore, background = params["ignore_label"], params["background_label"]
        self.counted = np.ones(values.shape, bool) if ignore is None else values != ignore
        self.t = np.where(self.counted, values, 0)
        self.foreground = self.t != 0
        if self.question.target == "distribution":
            positive = self.t > 0
            if background is not None:
                np.moveaxis(positive, self.axis, 0)[background] = False
            self.foreground = positive.any(axis=self.axis, keepdims=True)
        elif self.multi_label:
            self.t = self.t / np.maximum(self.foreground.sum(axis=self.axis, keepdims=True), 1)

    def per_class(self, value: Any) -> np.ndarray | float:
        """A list as an array that broadcasts with the scores, null as 1."""
        if isinstance(value, list):
            return np.reshape(value, (-1, *(1,) * (self.x.ndim - self.axis - 1)))
        return 1.0 if value is None else value

    def fields(self) -> dict[str, Any]:
        params, weights = self.question.params, self.question.weights
        weight = np.asarray(1.0 if weights is None else weights, np.float64)
        if weights is not None:
            is_by_position = weight.size == math.prod(self.position_shape)
            weight = weight.reshape(self.position_shape if is_by_position else self.x.shape)
        return {
            "x": self.x,
            "axis": self.axis,
            "t": self.t,
            "counted": self.counted,
            "foreground": self.foreground,
            "weight": weight,
            "class_weight": np.asarray(self.per_class(params["class_weight"])),
            "smoothing": params.get("label_smoothing", 0.0),
            "gamma": params.get("gamma", 0.0),
        }


def sigmoid_formula(question: Question) -> SigmoidFormula:
    shared = _Shared(question)
    alpha = question.params.get("alpha")
    positive = shared.per_class(alpha)
    negative = 1 - alpha if isinstance(alpha, float) else positive
    pos_weight = shared.per_class(question.params["pos_weight"])
    return SigmoidFormula(**shared.fields(), alpha=positive, beta=negative, pos_weight=pos_weight)


def softmax_formula(question: Question) -> SoftmaxFormula:
    shared, alpha = _Shared(question), question.params.get("alpha")
    if isinstance(alpha, float):
        alpha = np.where(shared.is_background, 1 - alpha, alpha)
    kind = ProbabilityFormula if question.layer.scores_are_probabilities else SoftmaxFormula
    return kind(**shared.fields(), alpha=shared.per_class(alpha), multi_label=shared.multi_label)


FAMILIES: Mapping[str, Callable[[Question], Any]] = {
    "sigmoid": sigmoid_formula,
    "softmax": softmax_formula,
    "probabilities": softmax_formula,
    "": OwnFormula,
}
"""What a loss layer may declare as its ``family``."""
