"""What a net is fed: arrays from an ``.npz``, and drawn ones where none are given.

Keys of an ``.npz``: what goes in is ``in/<blob>``, ``param/<layer>/<i>``, and ``top_diff/<blob>`` (for a net without a
loss, the diffs of its outputs); what comes out is ``data/<blob>``, ``diff/<blob>``, ``pdiff/<layer>/<i>``,
``param_after/<layer>/<i>`` (stored blobs that the forward pass changes) and ``total_loss``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from caffe_layers import CrossEntropyLossLayer
from caffe_tools.errors import NetError
from caffe_tools.net.backward_need import has_loss
from caffe_tools.net.blob import Blob
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.standard.data.input import Source
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, DISTRIBUTION, PROBABILITIES, REAL

GOES_IN = ("in/", "param/", "top_diff/")
COMES_OUT = ("data/", "diff/", "pdiff/", "param_after/", "total_loss")


def feed(net: Net, arrays: Mapping[str, np.ndarray], source: str) -> set[str]:
    """Put ``in/…``, ``param/…`` and ``top_diff/…`` into the net, reshaping it where inputs have other shapes.

    Returns their keys. Raises NetError, naming ``source`` and the key, where an array does not fit.
    """
    for key in arrays:
        if not key.startswith((*GOES_IN, *COMES_OUT)):
            known = ", ".join(f"{prefix}…" for prefix in GOES_IN)
            raise NetError(f"{source}: the key {key!r} is none that a net is fed: those begin with {known}")
    fed = {key: array for key, array in arrays.items() if key.startswith(GOES_IN)}
    for key, array in fed.items():
        if array.dtype.kind not in "fiub":
            raise NetError(f"{source}: {key} holds {array.dtype}, not numbers")
    _feed_inputs(net, fed, source)
    for key, array in fed.items():
        if key.startswith("param/"):
            _feed(_learnable_blob(net, key, source), "data", array, key, source)
        elif key.startswith("top_diff/"):
            _feed(_loss_free_output(net, key, source), "diff", array, key, source)
    return set(fed)


def _feed_inputs(net: Net, arrays: Mapping[str, np.ndarray], source: str) -> None:
    for key, array in arrays.items():
        if key.startswith("in/"):
            name = key.removeprefix("in/")
            if name not in fed_from_outside(net):
                raise NetError(f"{source}: {key}: {_why_not_fed(net, name)}")
            net.blobs[name].reshape(*array.shape)
            net.blobs[name].data[...] = array
    net.reshape()


def fed_from_outside(net: Net) -> list[str]:
    """The blobs that keep what is put into them: tops of Input layers, and those that are filled once, if ever."""
    return [top for top, source in _source_tops(net) if source.filler is None or source.is_filled_once]


def _left_empty(net: Net) -> list[str]:
    """The blobs that nobody but the user fills."""
    return [top for top, source in _source_tops(net) if source.filler is None]


def _source_tops(net: Net) -> list[tuple[str, Source]]:
    return [
        (top, source)
        for spec, layer in zip(net.spec.layers, net.layers, strict=True)
        if isinstance(layer, SourceLayer)
        for top, source in zip(spec.tops, layer.sources, strict=True)
    ]


def _why_not_fed(net: Net, blob: str) -> str:
    names = ", ".join(fed_from_outside(net)) or "none"
    for spec in net.spec.layers:
        if blob in spec.tops:
            return f"{spec} makes the blob {blob!r} in every forward pass; blobs that can be fed: {names}"
    return f"the net has no blob {blob!r}; blobs that can be fed: {names}"


def _learnable_blob(net: Net, key: str, source: str) -> Blob:
    layer, _, number = key.removeprefix("param/").rpartition("/")
    blobs = net.params.get(layer, [])
    if not number.isdigit() or int(number) >= len(blobs):
        raise NetError(f"{source}: {key}: the net has no such learnable blob (layer {layer!r} has {len(blobs)})")
    return blobs[int(number)]


def _loss_free_output(net: Net, key: str, source: str) -> Blob:
    name = key.removeprefix("top_diff/")
    if has_loss(net):
        raise NetError(f"{source}: {key}: backward starts at this net's losses, not at given diffs")
    if name not in net.outputs:
        raise NetError(f"{source}: {key}: the net has no output {name!r}: it has {', '.join(net.outputs)}")
    return net.blobs[name]


def _feed(blob: Blob, part: str, array: np.ndarray, key: str, source: str) -> None:
    if array.shape != blob.shape:
        raise NetError(f"{source}: {key} has the shape {array.shape}, the net's blob has {blob.shape}")
    getattr(blob, part)[...] = array


def draw_inputs(net: Net, fed: Collection[str], seed: int = 0) -> None:
    """Fill what is not ``fed``: labels with labels, other inputs from a normal distribution.

    So are the diffs from which the backward of a net without a loss starts; if some of them are fed, the others are 0.
    """
    random = np.random.default_rng(seed)
    for name in _left_empty(net):
        if f"in/{name}" not in fed:
            blob = net.blobs[name]
            blob.data[...] = _draw(net, name, blob.shape, random)
    if not has_loss(net) and not any(key.startswith("top_diff/") for key in fed):
        for name in net.outputs:
            net.blobs[name].diff[...] = random.normal(size=net.blobs[name].shape)


def _draw(net: Net, name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """What every layer that reads the blob takes: labels that are valid for all, where some read labels."""
    readers = _readers(net, name)
    labels = [_number_of_labels(*reader) for reader in readers]
    if any(labels):
        return random.integers(0, min(number for number in labels if number), shape)
    chosen = next((reader for reader in readers if _holds(*reader[:2]) is not None), None)
    return random.normal(size=shape) if chosen is None else draw_for_reader(*chosen[:2], shape, chosen[2], random)


def draw_for_reader(
    reader: StandardLayer | PythonLayer,
    position: int,
    shape: tuple[int, ...],
    scores: tuple[int, ...],
    random: np.random.Generator,
) -> np.ndarray:
    """What bottom ``position`` of the layer may hold: labels that fit scores of that shape, or normal data."""
    kind = _holds(reader, position)
    labels = _number_of_labels(reader, position, scores)
    if labels:
        return random.integers(0, labels, shape)
    if kind == DISTRIBUTION:
        weights = random.random(shape)
        return weights / weights.sum(axis=_axis(reader), keepdims=True)
    if kind == REAL:
        return random.random(shape)
    if kind == PROBABILITIES:
        return random.uniform(0.05, 1.0, shape)
    return random.normal(size=shape)


def _readers(net: Net, blob: str) -> list[tuple[StandardLayer | PythonLayer, int, tuple[int, ...]]]:
    """The layers that read ``blob``, directly or through a Split; at which bottom, and the shape of their first."""
    found = []
    for spec, layer in zip(net.spec.layers, net.layers, strict=True):
        for position, bottom in enumerate(spec.bottoms):
            if bottom != blob:
                continue
            if spec.is_inserted:
                for top in spec.tops:
                    found += _readers(net, top)
            else:
                found.append((layer, position, net.blobs[spec.bottoms[0]].shape))
    return found


def _holds(reader: StandardLayer | PythonLayer, position: int) -> str | None:
    """What bottom ``position`` of the layer takes: a kind of labels, PROBABILITIES, or None for any data."""
    if isinstance(reader, StandardLayer):
        return reader.kind.holds(position)
    if hasattr(reader.instance, "holds"):
        return reader.instance.holds(position)
    return _holds_today(reader, position)


def _holds_today(reader: PythonLayer, position: int) -> str | None:
    """FALLBACK until the classes of caffe_layers say it themselves (``holds``): to be deleted then."""
    if position == 0 and issubclass(reader.layer_class, CrossEntropyLossLayer):
        return PROBABILITIES
    if not hasattr(reader.instance, "params") or reader.allow_force_backward(position):
        return None
    if position == 2:
        return REAL
    target = reader.instance.params.get("target", "index")
    return {"index": CLASS_INDEX, "multi_label": BINARY, "distribution": DISTRIBUTION}[target]


def _number_of_labels(reader: StandardLayer | PythonLayer, position: int, scores: tuple[int, ...]) -> int | None:
    """How many labels, from 0 on, bottom ``position`` of the layer takes; None where it holds no labels."""
    kind = _holds(reader, position)
    if kind != CLASS_INDEX:
        return 2 if kind == BINARY else None
    if isinstance(reader, StandardLayer) and position in reader.layer.label_ranges:
        return reader.layer.label_ranges[position][0]
    axis = _axis(reader)
    return scores[axis] if -len(scores) <= axis < len(scores) else 2


def _axis(reader: StandardLayer | PythonLayer) -> int:
    """The axis of the scores that counts classes, as far as the layer tells."""
    return getattr(getattr(reader, "instance", None), "params", {}).get("axis", 1)
