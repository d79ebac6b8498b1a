"""Inputs that probe a loss: ignored labels, no foreground, one sample, extreme scores, soft targets.

What the loss reads is drawn at the graph's inputs: labels that the layer's parameters allow, scores, weights, and the
parameters that inputs carry. A bottom that an input reaches only through casts and reshapes counts as that input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from caffe_layers import normalization
from caffe_layers.loss import LossLayer
from caffe_tools.errors import GraphError
from caffe_tools.referee.foreign_graph import ForeignGraph, GraphInput

PASSED_THROUGH = frozenset("Cast Identity Reshape Squeeze Unsqueeze Flatten".split())
FEW, MANY = 7, 13
"""Samples in a batch, where the graph leaves that open. Both prime, so that no two counts are alike."""
OPEN_DIMS = (3, 4, 2)
"""Other open dims, counted from the last."""
IGNORED_SHARE, FOREGROUND_SHARE = 0.2, 0.5


@dataclass(frozen=True)
class Probe:
    """One batch of inputs. A difference counts, unless ``convention`` says in which respect losses may differ."""

    name: str
    feeds: Mapping[str, np.ndarray]
    convention: str = ""
    graph: ForeignGraph | None = None
    """What is run, where that is a part of the graph."""
    source: str | None = None
    """The graph's input that the scores are, apart from dtype and shape."""
    rehearsal: Mapping[str, np.ndarray] | None = None
    """Feeds of that part with scores of another batch: what differs there is not computed from the scores alone."""


@dataclass(frozen=True)
class _Plan:
    """How the labels are drawn (a style of Labels), whether the scores are extreme, how many samples there are."""

    name: str
    labels: str = "mixed"
    extreme: bool = False
    samples: int = FEW
    convention: str = ""


def given(graph: ForeignGraph, inputs: Mapping[str, np.ndarray], source: str) -> Probe:
    """The user's arrays, which must be all that the graph wants. Raises GraphError."""
    for name, array in inputs.items():
        if name not in graph.inputs:
            raise GraphError(f"{source}: the graph has no input {name!r}; it takes {', '.join(graph.inputs)}")
        wanted = graph.inputs[name]
        if array.dtype != wanted.dtype:
            raise GraphError(f"{source}: {name} holds {array.dtype}, but the graph takes {wanted.dtype}")
        fits = len(array.shape) == len(wanted.dims) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(wanted.dims, array.shape, strict=True)
        )
        if not fits:
            dims = "×".join(map(str, wanted.dims)) or "a scalar"
            raise GraphError(f"{source}: {name} has the shape {array.shape}, but the graph takes {dims}")
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise GraphError(f"{source} lacks {', '.join(missing)}, which the graph takes too")
    return Probe("the given inputs", inputs)


class Draw:
    """Draws the probes of one graph and one layer. Raises GraphError where it cannot tell what an input is for."""

    def __init__(
        self,
        graph: ForeignGraph,
        layer: type[LossLayer],
        params: Mapping[str, Any],
        bottoms: Sequence[str],
        parameters: Mapping[str, str],
        seed: int,
    ) -> None:
        self.graph, self.layer, self.params, self.bottoms, self.parameters = graph, layer, params, bottoms, parameters
        self.random = np.random.default_rng(seed)
        self.sources = [self._source(name) for name in bottoms]
        self.is_one_hot = self._passes_one_hot(bottoms[1])
        for name, source in list(zip(bottoms, self.sources, strict=True))[1:]:
            if source is None:
                raise GraphError(
                    f"{name!r} is computed from other tensors, so nothing can be drawn for it: give --inputs"
                )
        self.channels = self._channels()

    def probes(self) -> Iterator[Probe]:
        for plan in self._plans():
            feeds = self._feeds(plan)
            if plan.extreme and self.sources[0] is None:
                yield self._behind_scores(plan, feeds)
            else:
                yield Probe(plan.name, feeds, plan.convention, source=self.sources[0])

    def _behind_scores(self, plan: _Plan, feeds: dict[str, np.ndarray]) -> Probe:
        """The scores are inside the graph: the part behind them is run, with extreme ones."""
        name = self.bottoms[0]
        inner = self.graph.run(feeds, [name])[name]
        extreme = self._scores(inner.shape, plan).astype(inner.dtype)
        moderate = self.graph.run(self._feeds(replace(plan, extreme=False)), [name])[name]
        return Probe(
            plan.name, {**feeds, name: extreme}, graph=self.graph.cut(name, inner), rehearsal={**feeds, name: moderate}
        )

    def _plans(self) -> Iterator[_Plan]:
        params = self.params
        target = params.get("target", "index")
        yield _Plan("mixed labels")
        if any(isinstance(dim, str) for value in self.graph.inputs.values() for dim in value.dims[:1]):
            yield _Plan("many samples", samples=MANY)
            yield _Plan("one sample", "without_ignored", samples=1)
        else:
            yield _Plan("other mixed labels")
        if target == "index" and params.get("background_label") is not None or target == "multi_label":
            yield _Plan("no foreground", "background")
        if params.get("ignore_label") is not None:
            yield _Plan("no ignored labels", "without_ignored")
            yield _Plan("all ignored", "ignored")
        scores = "probabilities of 0" if self.layer.scores_are_probabilities else "extreme scores"
        yield _Plan(scores, extreme=True)
        if target == "index" or self.is_one_hot or self.graph.inputs[self.sources[1]].dtype.kind != "f":
            return
        yield _Plan("soft targets", "soft")
        mode = normalization.mode(params, self.layer.default_normalization) if "normalization" in params else ""
        if self.layer.family == "sigmoid" and mode == "POSITIVES":
            yield _Plan("targets below one half", "low", convention="which soft targets count as positives")
        if target == "distribution":
            yield _Plan("targets that do not sum to 1", "unequal", convention="targets that are no distribution")

    def _source(self, name: str) -> str | None:
        """The graph input that ``name`` is, apart from its dtype and shape."""
        while name not in self.graph.inputs:
            node = self.graph.makers.get(name)
            if node is None or node.op_type not in (*PASSED_THROUGH, "OneHot"):
                return None
            name = node.input[0]
        return name

    def _passes_one_hot(self, name: str) -> bool:
        while name in self.graph.makers:
            node = self.graph.makers[name]
            if node.op_type == "OneHot":
                return True
            if node.op_type not in PASSED_THROUGH:
                return False
            name = node.input[0]
        return False

    def _channels(self) -> int:
        axis = self.params["axis"]
        if self.bottoms[0] in self.graph.inputs:
            dims = self.graph.inputs[self.bottoms[0]].dims
            if -len(dims) <= axis < len(dims) and isinstance(dims[axis], int):
                return dims[axis]
        else:
            zeros = {}
            for name, wanted in self.graph.inputs.items():
                shape = self._shape(wanted, FEW, 1)
                is_label = name in self.sources[1:]
                zeros[name] = np.zeros(shape, wanted.dtype) if is_label else self._other(wanted, shape)
            shape = self.graph.run(zeros, [self.bottoms[0]])[self.bottoms[0]].shape
            if -len(shape) <= axis < len(shape):
                return shape[axis]
        lists = [len(value) for value in self.params.values() if isinstance(value, list)]
        return lists[0] if lists else 5

    def _shape(self, wanted: GraphInput, samples: int, channels: int) -> tuple[int, ...]:
        """The open first dims are the samples, the scores' open channels the channels, others fixed small numbers."""
        rank = len(wanted.dims)
        batch = {dims[0] for dims in (value.dims for value in self.graph.inputs.values()) if dims}
        shape = []
        for axis, dim in enumerate(wanted.dims):
            if isinstance(dim, int):
                shape.append(dim)
            elif wanted.name == self.sources[0] and axis == self.params["axis"] % rank:
                shape.append(channels)
            elif dim in batch:
                shape.append(samples)
            else:
                shape.append(OPEN_DIMS[(rank - 1 - axis) % len(OPEN_DIMS)])
        return tuple(shape)

    def _feeds(self, plan: _Plan) -> dict[str, np.ndarray]:
        feeds = {}
        carried = {name: self.parameters[name] for name in self.parameters if name in self.graph.inputs}
        for name, wanted in self.graph.inputs.items():
            shape = self._shape(wanted, plan.samples, self.channels)
            if name in carried:
                value = self._parameter(carried[name], shape)
            elif name == self.sources[0]:
                value = self._scores(shape, plan)
            elif name == self.sources[1]:
                value = self._labels(shape, plan.labels)
            elif len(self.sources) > 2 and name == self.sources[2]:
                value = self.random.uniform(0.2, 2.0, shape)
                value *= (self.random.random(shape) < 1 - IGNORED_SHARE) | (plan.samples == 1)
            else:
                value = self._other(wanted, shape)
            feeds[name] = np.asarray(value).astype(wanted.dtype)
        return feeds

    def _scores(self, shape: tuple[int, ...], plan: _Plan) -> np.ndarray:
        scores = self.random.normal(size=shape) * 2
        if plan.extreme:  # float32's exponential overflows at 88.7, and is 0 from -104 on
            scores = self.random.uniform(50, 200, shape) * self.random.choice((-1, 1), shape)
        if not self.layer.scores_are_probabilities:
            return scores
        powers = np.exp(scores - scores.max(axis=self.params["axis"], keepdims=True))
        probabilities = powers / powers.sum(axis=self.params["axis"], keepdims=True)
        return np.where(probabilities < 1e-18, 0, probabilities)  # what is close to the floor is rounded to either side

    def _labels(self, shape: tuple[int, ...], style: str) -> np.ndarray:
        target = "index" if self.is_one_hot else self.params.get("target", "index")
        return Labels(self.random, shape, self.layer, target).draw(style, self.params, self.channels)

    def _parameter(self, parameter: str, shape: tuple[int, ...]) -> np.ndarray:
        ranges = {
            "class_weight": (0.5, 2.5),
            "pos_weight": (0.5, 4.0),
            "alpha": (0.15, 0.45),
            "gamma": (1.0, 3.0),
            "label_smoothing": (0.05, 0.3),
        }
        if parameter not in ranges:
            raise GraphError(f"no values can be drawn for the parameter {parameter}: give them with --inputs")
        return self.random.uniform(*ranges[parameter], shape)

    def _other(self, wanted: GraphInput, shape: tuple[int, ...]) -> np.ndarray:
        """What is neither a bottom nor a parameter: data, or a weight (which no open dim belongs to)."""
        if wanted.dtype.kind == "f":
            is_weight = len(shape) > 1 and all(isinstance(dim, int) for dim in wanted.dims)
            spread = 1 / np.sqrt(np.prod(shape[1:])) if is_weight else 1.0
            return (self.random.normal(size=shape) * spread).astype(wanted.dtype)
        if wanted.dtype.kind == "b":
            return self.random.random(shape) < 0.5
        return self.random.integers(0, 2, shape).astype(wanted.dtype)


@dataclass(frozen=True)
class Labels:
    """Draws labels of one shape; ``style`` is mixed, without_ignored, background, ignored, soft, low or unequal."""

    random: np.random.Generator
    shape: tuple[int, ...]
    layer: type[LossLayer]
    target: str

    def draw(self, style: str, params: Mapping[str, Any], channels: int) -> np.ndarray:
        ignore = params.get("ignore_label")
        if style == "ignored":
            return np.full(self.shape, ignore)
        labels = self._index(style, params, channels) if self.target == "index" else self._dense(style, params)
        if ignore is None or style == "without_ignored":
            return labels
        if style == "mixed":
            labels = np.where(self.random.random(self.shape) < IGNORED_SHARE, ignore, labels)
        return labels

    def _index(self, style: str, params: Mapping[str, Any], channels: int) -> np.ndarray:
        background = params.get("background_label")
        classes = range(channels + (background is not None and not self.layer.background_has_a_channel))
        foreground = [c for c in classes if c not in (background, params.get("ignore_label"))] or classes
        labels = self.random.choice(foreground, self.shape)
        if background is None:
            return labels
        share = 1.0 if style == "background" else 1 - FOREGROUND_SHARE
        return np.where(self.random.random(self.shape) < share, background, labels)

    def _dense(self, style: str, params: Mapping[str, Any]) -> np.ndarray:
        random, shape = self.random, self.shape
        if self.target == "distribution":
            weights = random.exponential(size=shape) ** 2
            return weights if style == "unequal" else weights / weights.sum(axis=params["axis"], keepdims=True)
        labelled = random.random(shape) < (0 if style == "background" else FOREGROUND_SHARE * 0.8)
        if style == "low":
            return labelled * random.uniform(0.1, 0.4, shape)
        if style == "soft":
            highest = 3.0 if self.layer.family in ("softmax", "probabilities") else 1.0
            return labelled * random.uniform(0.5, highest, shape)
        return labelled.astype(float)
