"""Inputs for the tests of the layers: a table of configurations, and a strategy that draws them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

import caffe_layers
from caffe_layers import functional
from caffe_layers.elementwise.losses import ElementwiseLoss
from caffe_layers.functional import FUNCTIONS
from caffe_layers.loss import LossLayer
from caffe_layers.params import Kind, Parameter, ValueRefused


def declared(layer, name):
    """The parameter of that name that the layer declares, or one that may be nothing but null."""
    own = {parameter.name: parameter for parameter in LAYERS[layer].parameters}
    return own.get(name, Parameter(name, Kind("null", lambda value: value), None, ""))


LAYERS = {layer.__name__: layer for layer in caffe_layers.LAYERS}
LOSSES = tuple(name for name, layer in LAYERS.items() if issubclass(layer, LossLayer))
ACTIVATIONS = tuple(name for name, layer in LAYERS.items() if layer.function and name not in LOSSES)
INDEX_LOSSES = tuple(name for name in LOSSES if "index" in (declared(name, "target").choices or ("index",)))
MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE", "POSITIVES", "WEIGHT")


def own_tests(layer):
    """The module of the loss's own test file in tests/layers/losses, or None where there is none.

    It has ``oracle(scores, labels, weights=None, **params)``, the loss in float64 as its definition reads. It may have
    ``VALUES``, what to try for those of the loss's parameters that are not in PARAMETERS below, and
    ``draw_labels(random, shape, params)``, where labels of the kind that the layer's ``holds`` says are not enough.
    """
    name = f"test_{FUNCTIONS[LAYERS[layer]].__name__}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


@dataclass
class Case:
    """One configuration of a loss layer."""

    layer: str
    shape: tuple = (4, 5)
    params: dict = field(default_factory=dict)
    weights: str = ""
    """"": none, "position" or "element"."""
    spread: float = 3.0
    """How large the scores are."""

    def __str__(self):
        words = [self.layer[: -len("Layer")], "x".join(map(str, self.shape))]
        words += [f"{key}={value}".replace(" ", "") for key, value in self.params.items()]
        words += [f"weights-per-{self.weights}"] if self.weights else []
        return "-".join(words + ([f"scores-to-{self.spread:g}"] if self.spread != 3.0 else []))

    @property
    def layer_class(self):
        return LAYERS[self.layer]

    @property
    def function(self):
        return FUNCTIONS[self.layer_class]

    @property
    def oracle(self):
        return own_tests(self.layer).oracle

    @property
    def target(self):
        return self.params.get("target", declared(self.layer, "target").default or "index")

    def arrays(self, seed=0, dtype=np.float32):
        """(scores, labels) or (scores, labels, weights)"""
        rng = np.random.RandomState(seed)
        axis = self.params.get("axis", 1) % len(self.shape)
        channels = self.shape[axis]
        positions = self.shape[:axis] + self.shape[axis + 1 :]
        scores = (rng.randn(*self.shape) * self.spread).astype(dtype)
        if self.layer_class.scores_are_probabilities:
            scores = functional.softmax(scores, axis)
        labels = np.asarray(self._labels(rng, positions, channels), dtype)
        weights = {"": (), "position": positions, "element": self.shape}[self.weights]
        return (scores, labels, np.asarray(rng.random_sample(weights), dtype)) if self.weights else (scores, labels)

    def _labels(self, rng, positions, channels):
        ignore = self.params.get("ignore_label")
        own = own_tests(self.layer)
        if hasattr(own, "draw_labels"):
            labels = own.draw_labels(rng, self.shape, self.params)
        elif self.target == "index":
            background = self.params.get("background_label", 0)
            one_more = not self.layer_class.background_has_a_channel and background is not None
            labels = rng.randint(0, channels + one_more, positions)
        elif self.target == "distribution":
            labels = rng.rand(*self.shape)
            labels /= labels.sum(axis=self.params.get("axis", 1), keepdims=True)
        elif issubclass(self.layer_class, ElementwiseLoss):
            labels = np.where(rng.rand(*self.shape) < 0.5, rng.rand(*self.shape).round(1), rng.rand(*self.shape) < 0.4)
        else:
            labels = np.where(rng.rand(*self.shape) < 0.5, 0, rng.rand(*self.shape) * 3)
        if ignore is not None:
            labels = np.where(rng.random_sample(np.shape(labels)) < 0.3, ignore, labels)
        return labels


TABLE = [
    Case("", (4, 5)),
    Case("", (2, 4, 3, 2), {"normalization": "FULL"}, "position"),
    Case("", (3, 2, 4), {"axis": -1, "normalization": "BATCH_SIZE", "class_weight": [0.5, 1, 2, 0.1]}),
    Case("", (6, 3, 2), {"ignore_label": 2, "normalization": "VALID"}, "position"),
    Case("", (3, 4, 2), {"normalization": "WEIGHT", "class_weight": [0.5, 1, 2, 0.1]}, "position"),
    Case("", (5, 4), {"normalize": True}),
    Case("", (7, 1), {"background_label": None, "normalization": "POSITIVES"}),
    *(
        Case("", (5, 3, 2), {"target": t, "normalization": m, "ignore_label": -1, "background_label": 1}, "position")
        for t in ("index", "distribution", "multi_label")
        for m in MODES
    ),
    *(
        Case("", (5, 4), {"target": t, "label_smoothing": 0.1, "class_weight": [0.5, 1, 2, 0.1]})
        for t in ("index", "distribution", "multi_label")
    ),
    Case("", (4, 3, 2), {"label_smoothing": 0.1, "ignore_label": 1}),
    Case("", (4, 3, 2), {"pos_weight": [0.5, 2, 3]}, "element"),
    Case("", (4, 3), {"pos_weight": 2.5, "target": "index", "normalization": "POSITIVES"}),
    Case("", (4, 3), {"pos_weight": [1, 2, 3], "target": "index", "background_label": 3}),
    Case("", (4, 3), {"target": "index", "background_label": None, "label_smoothing": 0.2}),
    *(Case("", (4, 3), {"gamma": gamma, "alpha": None}) for gamma in (0, 0.5, 1, 1.5, 3)),
    Case("", (4, 3), {"gamma": 2, "alpha": [0.5, 1, 2]}),
    Case("", (6, 3), {"alpha": 0.9, "background_label": 2, "normalization": "POSITIVES"}),
    Case("", (3, 3, 3, 3)),
    Case("", (3, 3, 3, 3), {"axis": -1}),
    Case("", (6, 5), spread=1e4),
    Case("", (6, 5), spread=100),
]
"""Of these each loss gets those whose parameters it declares and accepts."""


def _accepts(layer, name, value):
    try:
        return any(one.name == name and one.accept(value) == value for one in LAYERS[layer].parameters)
    except ValueRefused:
        return False


def _table():
    for layer in LOSSES:
        for case in TABLE:
            if case.spread == 3.0 or not LAYERS[layer].scores_are_probabilities:
                if all(_accepts(layer, name, value) for name, value in case.params.items()):
                    yield replace(case, layer=layer)
        for name, values in getattr(own_tests(layer), "VALUES", {}).items():
            for value in values:
                yield Case(layer, (4, 3), {name: value})


CASES = tuple(_table())

PARAMETERS = {
    "target": lambda parameter, channels: st.sampled_from(parameter.choices),
    "label_smoothing": lambda parameter, channels: st.sampled_from([0.0, 0.1, 0.7]),
    "ignore_label": lambda parameter, channels: st.sampled_from([None, -1, 0, 1, 255]),
    "normalization": lambda parameter, channels: st.sampled_from([None, *MODES]),
    "normalize": lambda parameter, channels: st.sampled_from([None, True, False]),
    "class_weight": lambda parameter, channels: st.none() | _per_class(channels),
    "background_label": lambda parameter, channels: st.none() | st.integers(0, channels - 1),
    "pos_weight": lambda parameter, channels: st.none() | st.sampled_from([0.0, 0.5, 3.0]) | _per_class(channels),
    "alpha": lambda parameter, channels: st.none() | st.sampled_from([0.0, 0.25, 1.0]) | _per_class(channels),
    "gamma": lambda parameter, channels: st.sampled_from([0.0, 0.3, 1.0, 2.0, 2.5, 5.0]),
}
"""What is drawn for a parameter of this name, of whichever loss: a strategy."""


def _per_class(channels):
    return st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=channels, max_size=channels)


@st.composite
def cases(draw, layer=None):
    """Any configuration of a loss layer."""
    layer = layer or draw(st.sampled_from(LOSSES))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    params = {"axis": draw(st.integers(-len(shape), len(shape) - 1))}
    channels = shape[params["axis"]]
    labels = channels + (not LAYERS[layer].background_has_a_channel)
    values = getattr(own_tests(layer), "VALUES", {})
    for parameter in LAYERS[layer].parameters:
        name = parameter.name
        if name in values:
            params[name] = draw(st.sampled_from([parameter.default, *values[name]]))
        elif name in PARAMETERS:
            params[name] = draw(PARAMETERS[name](parameter, labels if name == "background_label" else channels))
    case = Case(layer, shape, params)
    takes_per_element = LAYERS[layer].takes_weights_per_element and case.target != "index"
    return replace(case, weights=draw(st.sampled_from(["", "position", *["element"] * takes_per_element])))
