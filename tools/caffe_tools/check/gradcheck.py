"""The backward of a Python layer against central differences of its forward, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blob, Blobs
from caffe_tools.net.draw import Reader
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.message import Message

STEP = 1e-5
TOLERANCE = 1e-6
LARGEST_BLOB = 2000
"""Of larger blobs this many elements, drawn at random, are checked."""


@dataclass(frozen=True)
class GradientRow:
    """One bottom (``bottom[0]``) or learnable blob (``blobs[0]``), and its element whose gradient is furthest from the
    central difference."""

    blob: str
    shape: tuple[int, ...]
    where: tuple[int, ...]
    backward: float
    difference: float
    relative: float
    agrees: bool
    note: str = ""

    def as_json(self) -> dict:
        return asdict(self)


def make_layer(module: str, name: str, param_str: str, allow_modules: Sequence[str]) -> PythonLayer:
    """The Python layer as a net would make it, its learnable blobs in float64; NetError where the class is none."""
    message = Message()
    python_param = message.add("python_param", Message())
    for field, value in (("module", module), ("layer", name), ("param_str", param_str)):
        python_param.add(field, value)
    layer = PythonLayer(LayerSpec(name=name, type="Python", phase="TRAIN", message=message), allow_modules)
    missing = [method for method in ("setup", "reshape", "forward", "backward") if not hasattr(layer.instance, method)]
    if missing:
        raise NetError(f"{module}:{name} is no Caffe layer: it has no {', '.join(missing)}")
    if isinstance(layer.instance.blobs, Blobs):
        layer.instance.blobs = Blobs(np.float64)
    return layer


def gradcheck(
    layer: PythonLayer, shapes: Sequence[tuple[int, ...]], given: Mapping[int, np.ndarray] | None = None, seed: int = 0
) -> list[GradientRow]:
    """One row for each bottom that the layer has a gradient for, and for each of its learnable blobs.

    The bottoms are drawn (labels as the layer's parameters say) unless ``given``; of a bottom that is given as integers
    no gradient is asked. Backward starts from random diffs of the tops. A value agrees within TOLERANCE of the blob's
    largest gradient. A layer that changes a bottom does not agree either.
    """
    given = given or {}
    random = np.random.default_rng(seed)
    bottoms = [Blob(shape, np.float64) for shape in shapes]
    tops = [Blob((), np.float64) for _ in range(_least(layer, "tops", 1))]
    _check_number_of_bottoms(layer, len(bottoms))
    layer.reshape(bottoms, tops)
    for index, bottom in enumerate(bottoms):
        drawn = Reader(layer, index, bottoms[0].shape).draw(bottom.shape, random)
        bottom.data[...] = given.get(index, drawn)
    wanted = [layer.allow_force_backward(i) and not _is_integral(given.get(i)) for i in range(len(bottoms))]
    before = [bottom.data.copy() for bottom in bottoms]
    _forward(layer, bottoms, tops)
    for top in tops:
        top.diff[...] = random.normal(size=top.shape)
    layer.backward(tops, wanted, bottoms, [True] * len(layer.blobs))
    written = [not np.array_equal(bottom.data, data) for bottom, data in zip(bottoms, before, strict=True)]
    for bottom, data in zip(bottoms, before, strict=True):
        bottom.data[...] = data
    checked = {f"bottom[{i}]": bottom for i, bottom in enumerate(bottoms) if wanted[i] or written[i]}
    checked |= {f"blobs[{i}]": blob for i, blob in enumerate(layer.blobs)}
    diffs = {name: blob.diff.copy() for name, blob in checked.items()}
    notes = {f"bottom[{i}]": "the layer writes into it" for i, changed in enumerate(written) if changed}

    def loss() -> float:
        """Σ top.diff · top, as the bottoms stand."""
        kept = [bottom.data.copy() for bottom in bottoms]
        _forward(layer, bottoms, tops)
        for bottom, data in zip(bottoms, kept, strict=True):
            bottom.data[...] = data
        return sum(float(np.sum(top.data * top.diff)) for top in tops)

    return [_compare(name, blob, diffs[name], loss, random, notes.get(name, "")) for name, blob in checked.items()]


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


def _is_integral(array: np.ndarray | None) -> bool:
    return array is not None and np.asarray(array).dtype.kind in "iub"


def _forward(layer: PythonLayer, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
    """As Caffe does it: reshape, then forward."""
    layer.reshape(bottoms, tops)
    layer.forward(bottoms, tops)


def _compare(
    name: str, blob: Blob, diff: np.ndarray, loss: Callable[[], float], random: np.random.Generator, note: str
) -> GradientRow:
    data = blob.data.reshape(-1)
    elements = np.arange(data.size)
    if data.size > LARGEST_BLOB:
        elements = np.sort(random.choice(data.size, LARGEST_BLOB, replace=False))
    numeric = np.array([_central_difference(data, int(element), loss) for element in elements])
    backward = diff.reshape(-1)[elements]
    if not elements.size:
        return GradientRow(name, blob.shape, (), 0.0, 0.0, 0.0, not note, note)
    gaps = np.abs(backward - numeric)
    scale = max(float(np.abs(numeric).max()), float(np.abs(backward).max()))
    worst = int(gaps.argmax())
    relative = float(gaps[worst] / scale) if gaps[worst] else 0.0
    return GradientRow(
        name,
        blob.shape,
        tuple(int(i) for i in np.unravel_index(int(elements[worst]), blob.shape)),
        float(backward[worst]),
        float(numeric[worst]),
        relative,
        bool(relative <= TOLERANCE) and not note,
        note,
    )


def _central_difference(data: np.ndarray, element: int, loss: Callable[[], float]) -> float:
    """(f(x + h) − f(x − h)) / 2h."""
    value, step = data[element], STEP * max(1.0, abs(data[element]))
    data[element] = value + step
    above = loss()
    data[element] = value - step
    below = loss()
    data[element] = value
    return (above - below) / (2 * step)
