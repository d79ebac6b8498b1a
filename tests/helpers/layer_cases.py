"""Inputs for the tests of the layers: a table of configurations, and a strategy that draws them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

import caffe_layers
from caffe_layers import functional

LOSS_FUNCTIONS = {
    "CrossEntropyLossLayer": functional.cross_entropy_loss,
    "SoftmaxLossLayer": functional.softmax_loss,
    "SigmoidCrossEntropyLossLayer": functional.sigmoid_cross_entropy_loss,
    "SigmoidFocalLossLayer": functional.sigmoid_focal_loss,
    "SoftmaxFocalLossLayer": functional.softmax_focal_loss,
}
LOSSES = tuple(LOSS_FUNCTIONS)
SOFTMAX_LIKE = ("CrossEntropyLossLayer", "SoftmaxLossLayer", "SoftmaxFocalLossLayer")
MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE", "POSITIVES", "WEIGHT")


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
        return getattr(caffe_layers, self.layer)

    @property
    def function(self):
        return LOSS_FUNCTIONS[self.layer]

    @property
    def target(self):
        return self.params.get("target", "multi_label" if self.layer.startswith("Sigmoid") else "index")

    def arrays(self, seed=0, dtype=np.float32):
        """(scores, labels) or (scores, labels, weights)"""
        rng = np.random.RandomState(seed)
        axis = self.params.get("axis", 1) % len(self.shape)
        channels = self.shape[axis]
        positions = self.shape[:axis] + self.shape[axis + 1 :]
        scores = (rng.randn(*self.shape) * self.spread).astype(dtype)
        if self.layer == "CrossEntropyLossLayer":
            scores = functional.softmax(scores, axis)
        labels = np.asarray(self._labels(rng, positions, channels), dtype)
        weights = {"": (), "position": positions, "element": self.shape}[self.weights]
        return (scores, labels, np.asarray(rng.random_sample(weights), dtype)) if self.weights else (scores, labels)

    def _labels(self, rng, positions, channels):
        ignore = self.params.get("ignore_label")
        if self.target == "index":
            background = self.params.get("background_label", 0)
            one_more = self.layer.startswith("Sigmoid") and background is not None
            labels = rng.randint(0, channels + one_more, positions)
        elif self.target == "distribution":
            labels = rng.rand(*self.shape)
            labels /= labels.sum(axis=self.params.get("axis", 1), keepdims=True)
        elif self.layer.startswith("Sigmoid"):
            labels = np.where(rng.rand(*self.shape) < 0.5, rng.rand(*self.shape).round(1), rng.rand(*self.shape) < 0.4)
        else:
            labels = np.where(rng.rand(*self.shape) < 0.5, 0, rng.rand(*self.shape) * 3)
        if ignore is not None:
            labels = np.where(rng.random_sample(np.shape(labels)) < 0.3, ignore, labels)
        return labels


def _table():
    for layer in LOSSES:
        yield Case(layer)
        yield Case(layer, (2, 4, 3, 2), {"normalization": "FULL"}, "position")
        yield Case(layer, (3, 2, 4), {"axis": -1, "normalization": "BATCH_SIZE", "class_weight": [0.5, 1, 2, 0.1]})
        yield Case(layer, (6, 3, 2), {"ignore_label": 2, "normalization": "VALID"}, "position")
        yield Case(layer, (3, 4, 2), {"normalization": "WEIGHT", "class_weight": [0.5, 1, 2, 0.1]}, "position")
        yield Case(layer, (5, 4), {"normalize": True})
        yield Case(layer, (7, 1), {"background_label": None, "normalization": "POSITIVES"})
        targets = {"CrossEntropyLossLayer": ("distribution", "multi_label"), "SoftmaxFocalLossLayer": ()}
        targets.update(SoftmaxLossLayer=("distribution", "multi_label"))
        for target in targets.get(layer, ("index",)):
            for mode in MODES:
                params = {"target": target, "normalization": mode, "ignore_label": -1, "background_label": 1}
                yield Case(layer, (5, 3, 2), params, "position")
            yield Case(layer, (5, 4), {"target": target, "label_smoothing": 0.1, "class_weight": [0.5, 1, 2, 0.1]})
        if layer != "SoftmaxFocalLossLayer":
            yield Case(layer, (4, 3, 2), {"label_smoothing": 0.1, "ignore_label": 1})
        if layer.startswith("Sigmoid"):
            yield Case(layer, (4, 3, 2), {"pos_weight": [0.5, 2, 3]}, "element")
            yield Case(layer, (4, 3), {"pos_weight": 2.5, "target": "index", "normalization": "POSITIVES"})
            yield Case(layer, (4, 3), {"pos_weight": [1, 2, 3], "target": "index", "background_label": 3})
            yield Case(layer, (4, 3), {"target": "index", "background_label": None, "label_smoothing": 0.2})
        if "Focal" in layer:
            for gamma in (0, 0.5, 1, 1.5, 3):
                yield Case(layer, (4, 3), {"gamma": gamma, "alpha": None})
            yield Case(layer, (4, 3), {"gamma": 2, "alpha": [0.5, 1, 2]})
            yield Case(layer, (6, 3), {"alpha": 0.9, "background_label": 2, "normalization": "POSITIVES"})
        if layer != "CrossEntropyLossLayer":
            yield Case(layer, (6, 5), spread=1e4)
            yield Case(layer, (6, 5), spread=100)


CASES = tuple(_table())


@st.composite
def cases(draw, layer=None):
    """Any configuration of a loss layer."""
    layer = layer or draw(st.sampled_from(LOSSES))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    channels = shape[axis]
    sigmoid, focal = layer.startswith("Sigmoid"), "Focal" in layer
    per_class = st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=channels, max_size=channels)
    params = {"axis": axis}
    if layer != "SoftmaxFocalLossLayer":
        params["target"] = draw(
            st.sampled_from(("index", "multi_label") if sigmoid else ("index", "distribution", "multi_label"))
        )
        params["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 0.7]))
    params["ignore_label"] = draw(st.sampled_from([None, -1, 0, 1, 255]))
    params["normalization"] = draw(st.sampled_from([None, *MODES]))
    params["normalize"] = draw(st.sampled_from([None, True, False]))
    params["class_weight"] = draw(st.none() | per_class)
    params["background_label"] = draw(st.none() | st.integers(0, channels - 1 + sigmoid))
    if sigmoid:
        params["pos_weight"] = draw(st.none() | st.sampled_from([0.0, 0.5, 3.0]) | per_class)
    if focal:
        params["alpha"] = draw(st.none() | st.sampled_from([0.0, 0.25, 1.0]) | per_class)
        params["gamma"] = draw(st.sampled_from([0.0, 0.3, 1.0, 2.0, 2.5, 5.0]))
    per_element = ["element"] if sigmoid and params["target"] != "index" else []
    return Case(layer, shape, params, draw(st.sampled_from(["", "position", *per_element])))
