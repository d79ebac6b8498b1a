"""The referee crosschecks a training graph that someone else exported with the layer that defines its loss: the verdict
is whether the two agree, and if not, what the graph computes in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx

import caffe_layers
from caffe_layers.layer import LayerError, naming
from caffe_layers.loss import LossLayer
from caffe_layers.params import complete, parse
from caffe_tools.errors import GraphError
from caffe_tools.files import strict_json
from caffe_tools.gradient.model import find
from caffe_tools.referee.diagnosis import Diagnosis, diagnose
from caffe_tools.referee.foreign_graph import Carry, ForeignGraph
from caffe_tools.referee.loss_formulas import Question
from caffe_tools.referee.not_finite import why_not_finite
from caffe_tools.referee.observation import LOSS, Observation
from caffe_tools.referee.probes import Draw, Probe, given

RTOL = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
"""What a tensor may be off by, over its largest value. float64: exporters keep constants such as 0.1 as float32."""


@dataclass(frozen=True)
class VerdictRow:
    """One tensor on one probe. ``counts`` is false where a difference is a matter of convention, told in the note."""

    probe: str
    tensor: str
    of: str
    """What it is the gradient by; empty for the loss."""
    largest: float
    absolute: float
    relative: float
    agrees: bool
    counts: bool = True
    note: str = ""


@dataclass
class Verdict:
    """What ``crosscheck`` found. The rows stand in the order of the probes."""

    graph: str
    layer: str
    rows: list[VerdictRow] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows if row.counts)

    def as_json(self) -> dict:
        return strict_json({"graph": self.graph, "layer": self.layer, "agrees": self.agrees, **asdict(self)})


def crosscheck(
    model: onnx.ModelProto | str | os.PathLike,
    layer: str | type[LossLayer],
    *,
    bottoms: Sequence[str],
    loss: str,
    gradients: Mapping[str, str] | None = None,
    param_str: str = "",
    parameters: Mapping[str, str] | None = None,
    loss_weight: float = 1.0,
    inputs: Mapping[str, np.ndarray] | None = None,
    inputs_from: str = "inputs",
    seed: int = 0,
) -> Verdict:
    """Compare the loss and the gradients of an ONNX graph with the layer of ``caffe_layers`` that defines them.

    ``bottoms`` (scores, labels, and weights where the layer has them), ``loss`` and the keys of ``gradients`` name any
    tensors of the graph; each of ``gradients`` claims to be the gradient of the loss by the tensor that is its value:
    the scores, or what they are computed from. ``parameters`` says which tensor carries which parameter of the layer.
    The truth is the layer in float64 on the values that the bottoms have in the run; its gradient is carried back to
    weights through the graph's own forward part. As in Caffe, ``loss_weight`` multiplies the gradients, not the loss.

    Without ``inputs`` (by the graph's own names; ``inputs_from`` names them in messages) inputs that probe the loss are
    drawn. Raises GraphError where a name, a shape or a dtype does not fit or ONNX Runtime cannot run the graph, and the
    layer's LayerError for parameters, labels and shapes that it refuses.
    """
    return _Referee(model, layer, bottoms, loss, gradients or {}, param_str, parameters or {}, loss_weight).crosscheck(
        inputs, inputs_from, seed
    )


def loss_layer(layer: str | type[LossLayer]) -> type[LossLayer]:
    """The loss layer of that name. Raises GraphError."""
    name = layer if isinstance(layer, str) else layer.__name__
    layers = {one.__name__: one for one in caffe_layers.LAYERS}
    losses = {name: one for name, one in layers.items() if issubclass(one, LossLayer)}
    if name not in losses:
        kind = "no loss" if name in layers else "no layer of caffe_layers"
        raise GraphError(f"{name} is {kind}: the losses are {', '.join(losses)}")
    return losses[name]


class _Referee:
    """One graph, one layer, and what is claimed of them."""

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike,
        layer: str | type[LossLayer],
        bottoms: Sequence[str],
        loss: str,
        gradients: Mapping[str, str],
        param_str: str,
        parameters: Mapping[str, str],
        loss_weight: float,
    ) -> None:
        self.layer = loss_layer(layer)
        with naming(self.layer.__name__):
            self.params = complete(parse(param_str), self.layer.parameters)
        if not 2 <= len(bottoms) <= len(self.layer.bottoms):
            raise GraphError(
                f"{self.layer.__name__} takes the bottoms {', '.join(self.layer.bottoms)}, in this order,"
                f" but {len(bottoms)} are given"
            )
        self.graph = ForeignGraph(model)
        self.bottoms = [self.graph.find(name) for name in bottoms]
        self.loss = self.graph.find(loss)
        self.parameters = {self.graph.find(tensor): parameter for tensor, parameter in parameters.items()}
        for parameter in self.parameters.values():
            find(parameter, [one.name for one in self.layer.parameters], self.layer.__name__, "parameter")
        if not np.isfinite(loss_weight) or loss_weight == 0:
            raise GraphError(f"loss_weight is {loss_weight:g}: gradients can be judged by a number other than 0 alone")
        self.loss_weight = loss_weight
        self.gradients = {self.graph.find(name): self.graph.find(of) for name, of in gradients.items()}
        self.carry = self._carry()
        self.verdict = Verdict(self.graph.name, self.layer.__name__)

    def _carry(self) -> Carry | None:
        """What brings the layer's gradient to the tensors that are no bottom."""
        by = list(dict.fromkeys(of for of in self.gradients.values() if of != self.bottoms[0]))
        sources = self.graph.computed_from(self.bottoms[0])
        for name, of in self.gradients.items():
            if of in self.bottoms[1:]:
                what = self.layer.bottoms[self.bottoms.index(of)].strip("[]")
                raise GraphError(
                    f"{name}={of}: {of!r} is given as the {what}, which {self.layer.__name__} has no gradient by"
                )
            if of in by and of not in sources:
                raise GraphError(f"{name}={of}: the scores {self.bottoms[0]!r} are not computed from {of!r}")
        return self.graph.carry(self.bottoms[0], by) if by else None

    def crosscheck(self, inputs: Mapping[str, np.ndarray] | None, inputs_from: str, seed: int) -> Verdict:
        if inputs is not None:
            probes: Any = [given(self.graph, inputs, inputs_from)]
        else:
            probes = Draw(self.graph, self.layer, self.params, self.bottoms, self.parameters, seed).probes()
        observations: list[Observation] = []
        for probe in probes:
            try:
                left_out = self._not_of_scores(probe)
                observation = self._observe(probe)
            except GraphError as error:
                if not observations:
                    raise
                row = VerdictRow(probe.name, self.loss, "", np.nan, np.nan, np.nan, False, note=str(error))
                self.verdict.rows.append(row)
                continue
            except LayerError as error:
                if inputs is not None:
                    raise
                raise GraphError(f"the drawn inputs do not fit, give others with --inputs: {error}") from None
            if self._add_rows(probe, observation, left_out):
                observations.append(observation)
        wrong = [key for key in (LOSS, *self.gradients) if self._is_wrong(key)]
        if wrong and observations:
            self.verdict.diagnoses = diagnose(
                observations, wrong, self.loss, self.loss_weight, self.graph.small_constants
            )
            self._place_mistake(wrong)
        return self.verdict

    def _observe(self, probe: Probe) -> Observation:
        """Run the graph and the layer."""
        names = [*self.bottoms, self.loss, *self.gradients, *self.parameters]
        graph = probe.graph or self.graph
        values = graph.run(probe.feeds, names)
        scores = values[self.bottoms[0]]
        if scores.dtype.kind != "f":
            raise GraphError(f"the scores {self.bottoms[0]!r} hold {scores.dtype}, not floats")
        if values[self.loss].size != 1 or values[self.loss].dtype.kind != "f":
            shape, dtype = values[self.loss].shape, values[self.loss].dtype
            raise GraphError(f"the loss {self.loss!r} must be one float, but has the shape {shape} of {dtype}")
        given_params = {name: self._parameter(name, values[tensor]) for tensor, name in self.parameters.items()}
        with naming(self.layer.__name__):
            params = self.params | {name: complete(given_params, self.layer.parameters)[name] for name in given_params}
        bottoms = [values[name] for name in self.bottoms]
        question = Question(self.layer, params, scores.astype(np.float64), *bottoms[1:])
        loss, gradient = question.answer()
        spread = self._spread(probe, values)
        found = {LOSS: values[self.loss].reshape(()).astype(np.float64)}
        found |= {name: values[name] for name in self.gradients}
        expected = {LOSS: np.asarray(loss), **spread(gradient * self.loss_weight)}
        for name, of in self.gradients.items():
            found[name] = self._laid_out(name, of, values[name], expected[name].shape)
        _, at_rest = replace(question, scores=_unsaturated(question)).answer()
        tolerance = self._tolerance(values, expected, spread(at_rest * self.loss_weight), scores)
        return Observation(probe.name, question, found, expected, tolerance, spread, self._reasons(probe, found))

    def _reasons(self, probe: Probe, found: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Why those tensors are not finite that are so, where the scores can be made smaller."""
        scores = self.bottoms[0]
        of = scores if scores in probe.feeds else probe.source
        if of is None:
            return {}
        graph = probe.graph or self.graph
        return {
            key: why_not_finite(graph, probe.feeds, scores, key or self.loss, of)
            for key, value in found.items()
            if not np.isfinite(value).all()
        }

    def _not_of_scores(self, probe: Probe) -> set[str]:
        """The tensors that the part of the graph behind the scores does not compute from these alone."""
        if probe.graph is None or probe.rehearsal is None:
            return set()
        observation = self._observe(replace(probe, feeds=probe.rehearsal, rehearsal=None))
        different = {key for key in observation.found if not self._row(key, observation, "").agrees}
        found = {key for key in different if not self._is_wrong(key)}
        if found:
            names, them = ", ".join(sorted(key or self.loss for key in found)), "it" if len(found) == 1 else "them"
            self.verdict.notes.append(
                f"{probe.name}: {names} cannot be judged there, for the graph computes {them} from more than the scores"
                f" {self.bottoms[0]}"
            )
        return found

    def _parameter(self, name: str, value: np.ndarray) -> Any:
        plain = value.astype(np.float64).tolist() if value.dtype.kind == "f" else value.tolist()
        while isinstance(plain, list) and len(plain) == 1 and not name.endswith("class_weight"):
            plain = plain[0]
        return plain

    def _spread(self, probe: Probe, values: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        dtype = values[self.bottoms[0]].dtype

        def spread(gradient: np.ndarray) -> dict[str, np.ndarray]:
            carried = self.carry(probe.feeds, gradient.astype(dtype)) if self.carry is not None else {}
            return {name: np.asarray(carried.get(of, gradient), np.float64) for name, of in self.gradients.items()}

        return spread

    def _laid_out(self, name: str, of: str, found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The claimed gradient, transposed where an exporter has stored the weight so."""
        if found.dtype.kind != "f":
            raise GraphError(f"the gradient {name!r} holds {found.dtype}, not floats")
        if found.shape == shape:
            return found
        if len(shape) == 2 and found.shape == shape[::-1]:
            note = f"{name} is compared transposed: it has the shape {found.shape}, but {of} has {shape}"
            if note not in self.verdict.notes:
                self.verdict.notes.append(note)
            return found.T
        raise GraphError(f"the gradient {name!r} has the shape {found.shape}, but {of!r} has {shape}")

    def _tolerance(
        self,
        values: Mapping[str, np.ndarray],
        expected: Mapping[str, np.ndarray],
        at_rest: Mapping[str, np.ndarray],
        scores: np.ndarray,
    ) -> dict[str, float]:
        """How far off each tensor may be: over its largest value, or where that is 0 or next to it, over rounding.

        A gradient is measured by the one at scores of 0, too, where nothing is saturated: p - t of a position that is
        classified right is the rounding of p.
        """
        loss = float(np.abs(expected[LOSS]))
        epsilon = float(np.finfo(values[self.loss].dtype).eps)
        largest_score = float(np.max(np.abs(scores), initial=1))
        tolerance = {LOSS: RTOL[values[self.loss].dtype.name] * loss + 8 * epsilon * largest_score}
        for name in self.gradients:
            rtol = RTOL[values[name].dtype.name]
            size = float(np.max(np.abs(expected[name]), initial=0))
            rest = float(np.max(np.abs(at_rest[name]), initial=0))
            tolerance[name] = rtol * size + 16 * float(np.finfo(values[name].dtype).eps) * rest
        return tolerance

    def _add_rows(self, probe: Probe, observation: Observation, left_out: Collection[str]) -> bool:
        """Add the rows of one probe; whether a diagnosis may rest on it."""
        nothing_counts = all(not np.any(value) for value in observation.expected.values())
        unharmed = all(not np.any(observation.found[name]) for name in self.gradients)
        is_nan = bool(np.isnan(observation.found[LOSS]) and nothing_counts and unharmed)
        rows = [self._row(key, observation, probe.convention) for key in self.gradients]
        rows.insert(0, self._row(LOSS, observation, "a loss of nothing" if is_nan else probe.convention))
        if left_out:
            names = {key or self.loss for key in left_out}
            self.verdict.rows += [row for row in rows if row.tensor not in names]
            return False
        self.verdict.rows += rows
        if is_nan:
            self.verdict.notes.append(
                f"{probe.name}: the graph's loss is NaN where nothing counts, as PyTorch has it; the layer's is 0, as"
                " Caffe has it. The gradients are 0 on both sides, so both learn the same"
            )
        elif probe.convention and not all(row.agrees for row in rows):
            self.verdict.notes.append(f"{probe.name}: the graph differs from the layer in {probe.convention}")
        return not is_nan and not probe.convention

    def _row(self, key: str, observation: Observation, convention: str) -> VerdictRow:
        found, expected = np.asarray(observation.found[key], np.float64), observation.expected[key]
        largest = float(np.max(np.abs(expected), initial=0))
        gaps = np.abs(found - expected)
        absolute = float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0))
        relative = absolute / largest if largest else (0.0 if absolute == 0 else np.inf)
        agrees = absolute <= observation.tolerance[key]
        note = "" if np.isfinite(found).all() else "not finite"
        if convention and not agrees:
            note = convention
        tensor, of = key or self.loss, self.gradients.get(key, "")
        return VerdictRow(observation.probe, tensor, of, largest, absolute, relative, agrees, not convention, note)

    def _is_wrong(self, key: str) -> bool:
        return any(row.tensor == (key or self.loss) and row.counts and not row.agrees for row in self.verdict.rows)

    def _place_mistake(self, wrong: Sequence[str]) -> None:
        """Where some gradients by weights agree, the loss is not what makes the others wrong."""
        right = [name for name in self.gradients if name not in wrong]
        behind = [name for name in wrong if name != LOSS and self.gradients[name] != self.bottoms[0]]
        if right and behind:
            self.verdict.notes.append(
                f"{', '.join(right)} agree{'s' if len(right) == 1 else ''}, so what is wrong with {', '.join(behind)}"
                " lies in the graph's way back to it, not in its loss"
            )


def _unsaturated(question: Question) -> np.ndarray:
    """Scores of the same shape at which every class is as likely."""
    value = 1 / question.channels if question.layer.scores_are_probabilities else 0.0
    return np.full(question.scores.shape, value)
