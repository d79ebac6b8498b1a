"""The backward of a Python layer against central differences of its forward, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caffe_tools.blob import Blob
from caffe_tools.errors import NetError
from caffe_tools.inputs import draw_for_reader
from caffe_tools.message import Message
from caffe_tools.netspec import LayerSpec
from caffe_tools.python_layer import PythonLayer

STEP = 1e-5
TOLERANCE = 1e-6
LARGEST_BOTTOM = 2000
"""Of larger bottoms this many elements, drawn at random, are checked."""


@dataclass(frozen=True)
class GradientRow:
    """One bottom, and its element whose gradient is furthest from the central difference."""

    bottom: int
    shape: tuple[int, ...]
    where: tuple[int, ...]
    backward: float
    difference: float
    relative: float
    agrees: bool

    def as_json(self) -> dict:
        return asdict(self)


def make_layer(module: str, name: str, param_str: str, allow_modules: Sequence[str]) -> PythonLayer:
    """The Python layer as a net would make it."""
    message = Message()
    python_param = message.add("python_param", Message())
    for field, value in (("module", module), ("layer", name), ("param_str", param_str)):
        python_param.add(field, value)
    return PythonLayer(LayerSpec(name=name, type="Python", phase="TRAIN", message=message), allow_modules)


def gradcheck(
    layer: PythonLayer, shapes: Sequence[tuple[int, ...]], given: Mapping[int, np.ndarray] | None = None, seed: int = 0
) -> list[GradientRow]:
    """One row for each bottom that the layer has a gradient for.

    The bottoms are drawn (labels as the layer's parameters say) unless ``given``. Backward starts from random diffs of
    the tops. A value agrees within TOLERANCE of the bottom's largest gradient.
    """
    random = np.random.default_rng(seed)
    bottoms = [Blob(shape, np.float64) for shape in shapes]
    tops = [Blob((), np.float64) for _ in range(_least(layer, "tops", 1))]
    _check_number_of_bottoms(layer, len(bottoms))
    layer.reshape(bottoms, tops)
    for index, bottom in enumerate(bottoms):
        drawn = draw_for_reader(layer, index, bottom.shape, bottoms[0].shape, random)
        bottom.data[...] = (given or {}).get(index, drawn)
    layer.reshape(bottoms, tops)
    wanted = [layer.allow_force_backward(index) for index in range(len(bottoms))]
    layer.forward(bottoms, tops)
    for top in tops:
        top.diff[...] = random.normal(size=top.shape)
    layer.backward(tops, wanted, bottoms, [])
    diffs = [bottom.diff.copy() for bottom in bottoms]
    return [
        _compare(layer, index, bottoms, tops, diffs[index], random) for index in range(len(bottoms)) if wanted[index]
    ]


def _least(layer: PythonLayer, what: str, default: int) -> int:
    """How many bottoms or tops the layer cannot do without, where it declares them."""
    names = getattr(layer.layer_class, what, None)
    return default if not names else sum(not name.startswith("[") for name in names)


def _check_number_of_bottoms(layer: PythonLayer, number: int) -> None:
    names = getattr(layer.layer_class, "bottoms", None)
    if names is not None and not _least(layer, "bottoms", 0) <= number <= len(names):
        raise NetError(
            f"{layer.layer_class.__name__} takes the bottoms {', '.join(names) or 'none'}, but {number} shapes are"
            " given: give --bottom once for each"
        )


def _compare(
    layer: PythonLayer,
    index: int,
    bottoms: Sequence[Blob],
    tops: Sequence[Blob],
    diff: np.ndarray,
    random: np.random.Generator,
) -> GradientRow:
    data = bottoms[index].data.reshape(-1)
    elements = np.arange(data.size)
    if data.size > LARGEST_BOTTOM:
        elements = np.sort(random.choice(data.size, LARGEST_BOTTOM, replace=False))
    numeric = np.array([_central_difference(layer, data, element, bottoms, tops) for element in elements])
    backward = diff.reshape(-1)[elements]
    gaps = np.abs(backward - numeric)
    scale = max(float(np.abs(numeric).max(initial=0)), float(np.abs(backward).max(initial=0)))
    worst = int(gaps.argmax()) if gaps.size else 0
    relative = float(gaps[worst] / scale) if gaps.size and scale else 0.0
    where = tuple(int(i) for i in np.unravel_index(int(elements[worst]), diff.shape)) if gaps.size else ()
    return GradientRow(
        index,
        diff.shape,
        where,
        float(backward[worst]) if gaps.size else 0.0,
        float(numeric[worst]) if gaps.size else 0.0,
        relative,
        bool(relative <= TOLERANCE),
    )


def _central_difference(
    layer: PythonLayer, data: np.ndarray, element: int, bottoms: Sequence[Blob], tops: Sequence[Blob]
) -> float:
    """(f(x + h) − f(x − h)) / 2h of f = Σ top.diff · top."""
    value, step = data[element], STEP * max(1.0, abs(data[element]))
    results: list[Any] = []
    for sign in (1, -1):
        data[element] = value + sign * step
        layer.forward(bottoms, tops)
        results.append(sum(float(np.sum(top.data * top.diff)) for top in tops))
    data[element] = value
    return (results[0] - results[1]) / (2 * step)
