"""What a graph computes in place of the loss that it should: the candidates of mistakes.py, tried on every probe.

For each reading and each tensor that is wrong, the factor between what the graph has and what the reading gives is
measured, probe by probe; where there is one, it is looked for among the scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from caffe_layers.contract import LayerError
from caffe_tools.referee.loss_formulas import Question
from caffe_tools.referee.mistakes import Reading, readings
from caffe_tools.referee.observation import LOSS, Observation
from caffe_tools.referee.scales import Scale, divisors, factors, right_factor

MOST_DEPARTURES = 2.0
CONSTANT_COST = 2.5
ALTERNATIVES = 3


@dataclass(frozen=True)
class Diagnosis:
    """What would make ``tensors`` agree: ``departures`` names the mistakes (none: no known one does)."""

    tensors: tuple[str, ...]
    departures: tuple[str, ...]
    text: str
    numbers: str = ""
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Explanation:
    cost: float
    order: int
    names: tuple[str, ...]
    says: str
    same: tuple[str, ...] = ()
    """What else could be said, since it is the same on all probes."""


@dataclass
class _Factor:
    """A divisor and a factor, with their product on all probes."""

    cost: float
    names: tuple[str, ...]
    says: str
    values: np.ndarray
    same: list[str] = field(default_factory=list)


def diagnose(
    observations: Sequence[Observation],
    wrong: Sequence[str],
    loss_name: str,
    loss_weight: float,
    constants: Collection[float] = (),
) -> list[Diagnosis]:
    """One diagnosis for each group of wrong tensors that a mistake explains together.

    Where nothing explains all probes, those with soft targets, extreme scores or both may be otherwise besides; then
    that is said. ``constants`` are small numbers that the graph has.
    """
    first: list[Diagnosis] = []
    for soft, extreme in ((True, True), (False, True), (True, False), (False, False)):
        kept = [o for o in observations if (soft or not o.has_soft_targets) and (extreme or not o.is_extreme)]
        if not kept or (first and len(kept) == len(observations)):
            continue
        left = [o for o in observations if not any(o is one for one in kept)]
        still_wrong = [tensor for tensor in wrong if any(one.differs(tensor) for one in kept)]
        found = _diagnoses(kept, still_wrong, loss_name, loss_weight, constants) if still_wrong else []
        if all(one.departures for one in found):
            besides = [tensor for tensor in wrong if tensor not in still_wrong]
            return [_but(one, left, loss_name) for one in found] + _elsewhere(besides, left, loss_name)
        first = first or found
    return first


def _diagnoses(
    observations: Sequence[Observation],
    wrong: Sequence[str],
    loss_name: str,
    loss_weight: float,
    constants: Collection[float],
) -> list[Diagnosis]:
    search = _Search(observations, wrong, loss_weight, constants)
    explanations = {tensor: search.explanations(tensor) for tensor in wrong}
    names = {tensor: tensor or loss_name for tensor in wrong}
    gradients = [tensor for tensor in wrong if tensor != LOSS]
    for groups in ([list(wrong)], [[LOSS], gradients], [[tensor] for tensor in wrong]):
        groups = [group for group in groups if group and all(tensor in wrong for tensor in group)]
        shared = [_shared([explanations[tensor] for tensor in group]) for group in groups]
        if all(shared) or len(groups) == len(wrong):
            break
    loss_is_right = LOSS not in wrong and any(LOSS in observation.found for observation in observations)
    return [_diagnosis(group, found, search, names, loss_is_right) for group, found in zip(groups, shared, strict=True)]


SOFT = "soft targets are weighed otherwise"


def _but(diagnosis: Diagnosis, left: Sequence[Observation], loss_name: str) -> Diagnosis:
    """Which probes it does not explain."""
    keys = [LOSS if tensor == loss_name else tensor for tensor in diagnosis.tensors]
    text = diagnosis.text
    if any(one.has_soft_targets and one.differs(key) for one in left for key in keys):
        text += f", on targets of 0 and 1 ({SOFT})"
    extreme = [(one, key) for one in left for key in keys if one.is_extreme and one.differs(key)]
    if extreme:
        reasons = [one.reasons[key] for one, key in extreme if key in one.reasons]
        text += ", but for extreme scores" + (f" ({reasons[0]})" if reasons else "")
    return replace(diagnosis, text=text)


def _elsewhere(wrong: Sequence[str], left: Sequence[Observation], loss_name: str) -> list[Diagnosis]:
    """Of tensors that differ on soft targets or extreme scores alone."""
    found = []
    for tensor in wrong:
        differing = [one for one in left if one.differs(tensor)]
        worst = next((one for one in differing if tensor in one.reasons), differing[0])
        name = tensor or loss_name
        departures: tuple[str, ...]
        if tensor in worst.reasons:
            departures, text = ("not-finite",), f"{name}: {worst.reasons[tensor]}"
        elif all(one.has_soft_targets for one in differing):
            departures, text = ("soft-targets",), f"{name} agrees on targets of 0 and 1: {SOFT}"
        else:
            departures, text = (), f"{name}: no known mistake explains the difference on extreme scores"
        found.append(Diagnosis((name,), departures, text, _numbers([worst], tensor)))
    return found


def _shared(found: Sequence[Sequence[_Explanation]]) -> list[_Explanation]:
    """The explanations that hold for all tensors, unless each of them has one that is a good deal simpler."""
    keys = [{explanation.names for explanation in one} for one in found]
    common = [explanation for explanation in found[0] if all(explanation.names in key for key in keys)]
    if common and len(found) > 1:
        simplest = max(min(explanation.cost for explanation in one) for one in found)
        common = [explanation for explanation in common if explanation.cost <= simplest + 1]
    return common


def _diagnosis(
    group: Sequence[str], found: Sequence[_Explanation], search: _Search, names: Mapping[str, str], loss_is_right: bool
) -> Diagnosis:
    tensors = tuple(names[tensor] for tensor in group)
    who = " and ".join(filter(None, [", ".join(tensors[:-1]), tensors[-1]]))
    numbers = _numbers(search.observations, group[0])
    if not found:
        text = f"{who}: no known mistake explains the difference ({search.tried} tried)"
        return Diagnosis(tensors, (), text, numbers)
    best, *others = sorted(found, key=lambda explanation: (explanation.cost, explanation.order))
    only = "the loss is right, but " if loss_is_right else ""
    verb = "would agree" if not only else "would agree only"
    others_say = (*best.same, *(other.says for other in others if other.cost == best.cost))
    alternatives = tuple(says for says in dict.fromkeys(others_say) if says != best.says)[:ALTERNATIVES]
    return Diagnosis(tensors, best.names, f"{only}{who} {verb} if {best.says}", numbers, alternatives)


class _Search:
    """The candidates, computed once for all probes."""

    def __init__(
        self,
        observations: Sequence[Observation],
        wrong: Iterable[str],
        loss_weight: float,
        constants: Collection[float],
    ) -> None:
        self.observations, self.loss_weight = observations, loss_weight
        first = observations[0].question
        self.readings = list(readings(first, constants))
        self.scales = self._scales(first)
        self.right = self._values(Scale("", "", right_factor))
        self.wants_gradients = any(tensor != LOSS for tensor in wrong)
        self._computed: dict[str, list[dict[str, np.ndarray]] | None] = {}
        self.tried = len(self.readings) * len(self.scales)

    def explanations(self, tensor: str) -> list[_Explanation]:
        """Every candidate that gives the tensor on all probes."""
        found = []
        weight = 1.0 if tensor == LOSS else self.loss_weight
        for order, reading in enumerate(self.readings):
            computed = self._compute(reading)
            if computed is None:
                continue
            ratios = self._ratios(tensor, [one[tensor] * weight for one in computed])
            if ratios is None:
                continue
            for scale in self.scales:
                if 0 < scale.cost + reading.cost <= MOST_DEPARTURES and _match(ratios, scale.values):
                    found.append(_explanation(order, reading, scale))
            constant = self._constant(ratios, tensor)
            if constant is not None:
                says = f"it were multiplied with {constant:.6g}"
                scale = _Factor(CONSTANT_COST, ("constant-ratio",), says, self.right)
                found.append(_explanation(order, reading, scale))
        return found

    def _compute(self, reading: Reading) -> list[dict[str, np.ndarray]] | None:
        """The sum and the gradients of the reading, for each probe; None where it does not apply."""
        if reading.name not in self._computed:
            try:
                with np.errstate(all="ignore"):
                    self._computed[reading.name] = [self._evaluate(reading, one) for one in self.observations]
            except (LayerError, ValueError, IndexError):  # labels that it cannot read, or no such axis
                self._computed[reading.name] = None
        return self._computed[reading.name]

    def _evaluate(self, reading: Reading, observation: Observation) -> dict[str, np.ndarray]:
        total, gradient = reading.compute(observation.question)
        values = {LOSS: np.asarray(total)}
        if self.wants_gradients:
            values |= observation.spread(gradient.reshape(observation.question.scores.shape))
        return values

    def _ratios(self, tensor: str, computed: Sequence[np.ndarray]) -> list[tuple[float, float]] | None:
        """For each probe the factor from the reading to the graph, and how exact that is; None where there is none.

        NaN stands for a graph without a number, infinity as exactness for a probe on which every factor does.
        """
        ratios = []
        for observation, raw in zip(self.observations, computed, strict=True):
            found, tolerance = np.asarray(observation.found[tensor], np.float64), observation.tolerance[tensor]
            if not np.isfinite(raw).all():
                return None
            if not np.isfinite(found).all():
                ratios.append((np.nan, 0.0))
                continue
            size = float(np.sum(raw * raw))
            ratio = float(np.sum(raw * found)) / size if size else 0.0
            slack = max(tolerance, 1e-6 * float(np.max(np.abs(found), initial=0)))
            if np.max(np.abs(found - ratio * raw), initial=0) > slack:
                return None
            largest = float(np.max(np.abs(raw), initial=0))
            ratios.append((ratio, slack / largest if largest else np.inf))
        return ratios

    def _constant(self, ratios: Sequence[tuple[float, float]], tensor: str) -> float | None:
        """What the graph has too much, if that is one number on all probes."""
        weight = 1.0 if tensor == LOSS else self.loss_weight
        known = [
            (ratio / right, slack / abs(right))
            for (ratio, slack), right in zip(ratios, self.right, strict=True)
            if np.isfinite(ratio) and np.isfinite(slack) and right
        ]
        if len(known) < (2 if tensor == LOSS else 1) or any(np.isnan(ratio) for ratio, _ in ratios):
            return None
        best = min(known, key=lambda pair: pair[1])[0]
        agree = all(abs(ratio - best) <= max(slack, 1e-6 * abs(best)) for ratio, slack in known)
        return best if agree and best != 0 and weight else None

    def _scales(self, first: Question) -> list[_Factor]:
        """The divisors times the factors, simple ones first; what is the same on all probes stands once."""
        scales: list[_Factor] = []
        pairs = itertools.product(list(divisors(first)), list(factors(first, self.loss_weight)))
        for divisor, factor in sorted(pairs, key=lambda pair: (pair[0].cost + pair[1].cost, pair[1].cost)):
            with np.errstate(invalid="ignore"):  # a divisor of 0 gives infinity, and a factor may be 0
                values = self._values(divisor) * self._values(factor)
            parts = [part for part in (divisor, factor) if part.name]
            says = " and ".join(part.says for part in parts)
            cost = divisor.cost + factor.cost
            equal = next((s for s in scales if np.allclose(values, s.values, rtol=1e-9, atol=0, equal_nan=True)), None)
            if equal is None:
                scales.append(_Factor(cost, tuple(part.name for part in parts), says, values))
            elif equal.cost == cost == divisor.cost:
                equal.same.append(says)
        return scales

    def _values(self, scale: Scale) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.array([scale.compute(observation.question) for observation in self.observations])


def _match(ratios: Sequence[tuple[float, float]], values: np.ndarray) -> bool:
    for (ratio, slack), value in zip(ratios, values, strict=True):
        if np.isnan(ratio) or not np.isfinite(value):
            if np.isnan(ratio) and not np.isfinite(value):
                continue
            return False
        if abs(ratio - value) > slack:
            return False
    return True


def _explanation(order: int, reading: Reading, scale: _Factor) -> _Explanation:
    says = " and ".join(part for part in (reading.says, scale.says) if part)
    names = tuple(name for name in (reading.name, *scale.names) if name)
    return _Explanation(scale.cost + reading.cost, order, names, says, tuple(scale.same) if not reading.name else ())


def _numbers(observations: Sequence[Observation], tensor: str) -> str:
    """The probe that shows the difference best: one with numbers, where there is one that differs."""

    def gap(observation: Observation) -> tuple[bool, bool, float]:
        found, expected = observation.found[tensor], observation.expected[tensor]
        off = float(np.max(np.abs(np.asarray(found, float) - expected), initial=0))
        is_number = bool(np.isfinite(off) and np.any(expected))
        return observation.differs(tensor), is_number, off / observation.tolerance[tensor] if is_number else 0.0

    worst = max(observations, key=gap)
    found, expected = np.asarray(worst.found[tensor], float), worst.expected[tensor]
    gaps = np.abs(found - expected)
    place = np.unravel_index(int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps))), np.shape(expected))
    at = f" at {','.join(map(str, place))}" if place else ""
    has, wants = float(found[place]), float(np.asarray(expected)[place])
    ratio = f", ratio {has / wants:.6g}" if wants and np.isfinite(has) else ""
    return f"{worst.probe}{at}: {has:.6g} where the layer has {wants:.6g}{ratio}"
