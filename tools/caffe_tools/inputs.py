"""What a net is fed: arrays from an ``.npz``, and drawn ones where none are given.

Keys of an ``.npz``: ``in/<blob>``, ``param/<layer>/<i>``, ``data/<blob>``, ``diff/<blob>``, ``pdiff/<layer>/<i>``,
``top_diff/<blob>``.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net import Net
from caffe_tools.python_layer import PythonLayer
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, REAL
from caffe_tools.standard_layer import StandardLayer

DISTRIBUTION = "distribution"
KEY_PARTS = {"in": 1, "param": 2, "data": 1, "diff": 1, "pdiff": 2, "top_diff": 1}
"""The prefixes of the keys, and how many names follow each."""


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``; NetError where it is not there, is none, or holds pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        raise NetError(f"{path} is not there") from None
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
        raise NetError(f"{path} is no .npz of plain arrays: {' '.join(str(error).split())}") from None


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz``; nothing is left at ``path`` if that fails."""
    path = Path(path)
    if not path.parent.is_dir():
        raise NetError(f"cannot write {path}: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "arrays.npz"
        np.savez(temporary, **arrays)
        os.replace(temporary, path)


def feed(net: Net, arrays: Mapping[str, np.ndarray], source: str) -> set[str]:
    """Put ``in/…`` and ``param/…`` into the net, reshaping it where inputs have other shapes; the inputs fed.

    Raises NetError, naming ``source`` and the key, where an array does not fit.
    """
    fed = set()
    for key, array in arrays.items():
        kind, _, rest = key.partition("/")
        if kind == "in":
            if rest not in _fed_from_outside(net):
                names = ", ".join(_fed_from_outside(net)) or "none"
                raise NetError(f"{source}: {key}: the net has no input blob {rest!r}: it has {names}")
            if array.dtype.kind not in "fiub":
                raise NetError(f"{source}: {key} holds {array.dtype}, not numbers")
            net.blobs[rest].reshape(*array.shape)
            net.blobs[rest].data[...] = array
            fed.add(rest)
        elif kind == "param":
            _feed_parameter(net, key, array, source)
        elif kind not in KEY_PARTS:
            raise NetError(f"{source}: the key {key!r} starts with none of {', '.join(f'{k}/' for k in KEY_PARTS)}")
    net.reshape()
    return fed


def _feed_parameter(net: Net, key: str, array: np.ndarray, source: str) -> None:
    layer, _, number = key.removeprefix("param/").rpartition("/")
    blobs = net.params.get(layer, [])
    if not number.isdigit() or int(number) >= len(blobs):
        raise NetError(f"{source}: {key}: the net has no such learnable blob (layer {layer!r} has {len(blobs)})")
    blob = blobs[int(number)]
    if array.shape != blob.shape:
        raise NetError(f"{source}: {key} has the shape {array.shape}, the net's blob has {blob.shape}")
    blob.data[...] = array


def _fed_from_outside(net: Net) -> list[str]:
    """The tops of the layers without bottoms: Input, DummyData, Python data layers."""
    return [top for spec in net.spec.layers if not spec.bottoms for top in spec.tops]


def draw_inputs(net: Net, fed: set[str], seed: int = 0) -> None:
    """Fill the Input blobs that are not ``fed``: labels with labels, everything else from a normal distribution."""
    random = np.random.default_rng(seed)
    for name in net.inputs:
        if name not in fed:
            blob = net.blobs[name]
            blob.data[...] = _draw(net, name, blob.shape, random)


def _draw(net: Net, name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    readers = _readers(net, name)
    for reader, position, scores in readers:
        if _held(reader, position) is not None:
            return draw_for_reader(reader, position, shape, scores, random)
    return random.normal(size=shape)


def draw_for_reader(
    reader: StandardLayer | PythonLayer,
    position: int,
    shape: tuple[int, ...],
    scores: tuple[int, ...],
    random: np.random.Generator,
) -> np.ndarray:
    """What bottom ``position`` of the layer may hold: labels that fit scores of that shape, or normal data."""
    kind = _held(reader, position)
    if kind == CLASS_INDEX:
        return random.integers(0, _classes(reader, scores), shape)
    if kind == BINARY:
        return random.integers(0, 2, shape)
    if kind == DISTRIBUTION:
        weights = random.random(shape)
        return weights / weights.sum(axis=_axis(reader), keepdims=True)
    if kind == REAL:
        return random.random(shape)
    if _takes_probabilities(reader):
        return random.uniform(0.05, 1.0, shape)
    return random.normal(size=shape)


def _takes_probabilities(reader: StandardLayer | PythonLayer) -> bool:
    names = getattr(reader.layer_class, "bottoms", ()) if isinstance(reader, PythonLayer) else ()
    return bool(names) and names[0] == "probabilities"


def _readers(net: Net, blob: str) -> list[tuple[StandardLayer | PythonLayer, int, tuple[int, ...]]]:
    """The layers that read ``blob``, directly or through a Split; at which bottom, and the shape of their first."""
    found = []
    for spec, layer in zip(net.spec.layers, net.layers, strict=True):
        for position, bottom in enumerate(spec.bottoms):
            if bottom != blob:
                continue
            if spec.type == "Split":
                for top in spec.tops:
                    found += _readers(net, top)
            else:
                found.append((layer, position, net.blobs[spec.bottoms[0]].shape))
    return found


def _held(reader: StandardLayer | PythonLayer, position: int) -> str | None:
    """What kind of labels bottom ``position`` of the layer takes; None for data."""
    if isinstance(reader, StandardLayer):
        return reader.kind.labels.get(position)
    if not hasattr(reader.instance, "params") or reader.allow_force_backward(position):
        return None
    if position == 2:
        return REAL
    target = reader.instance.params.get("target", "index")
    return {"index": CLASS_INDEX, "multi_label": BINARY, "distribution": DISTRIBUTION}[target]


def _axis(reader: StandardLayer | PythonLayer) -> int:
    if isinstance(reader, PythonLayer):
        return reader.instance.params.get("axis", 1)
    for message in ("softmax_param", "accuracy_param", "infogain_loss_param"):
        if message in reader.kind.messages:
            return getattr(reader.layer, message).axis
    return 1


def _classes(reader: StandardLayer | PythonLayer, scores: tuple[int, ...]) -> int:
    """The number of labels that a layer's class index may take."""
    axis = _axis(reader)
    return scores[axis] if -len(scores) <= axis < len(scores) else 2
