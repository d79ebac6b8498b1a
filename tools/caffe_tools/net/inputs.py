"""What a net is fed: arrays by the keys of an ``.npz`` (``keys.py``), and drawn ones where none are given."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from caffe_layers import CrossEntropyLossLayer
from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import DATA, DIFF, GOES_IN, IN, PARAM, PDIFF, TOP_DIFF, Arrays, is_known, layer_of, split_key
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.standard.registry import BINARY, CLASS_INDEX, REAL

DISTRIBUTION, PROBABILITIES = "distribution", "probabilities"


def feed(net: Net, arrays: Arrays, source: str) -> set[str]:
    """Put ``in/…``, ``param/…`` and ``top_diff/…`` into the net, reshaping it where inputs have other shapes.

    Returns their keys. Raises NetError, naming ``source`` and the key, where an array does not fit.
    """
    for key in arrays:
        if not is_known(key):
            known = ", ".join(kind.key("…") for kind in GOES_IN)
            raise NetError(f"{source}: the key {key!r} is none that a net is fed: those begin with {known}")
    fed = {key: array for key, array in arrays.items() if split_key(key)[0] in GOES_IN}
    for key, array in fed.items():
        if array.dtype.kind not in "fiub":
            raise NetError(f"{source}: {key} holds {array.dtype}, not numbers")
    for name, array in IN.of(fed).items():
        if name not in fed_from_outside(net):
            raise NetError(f"{source}: {IN.key(name)}: {_why_not_fed(net, name)}")
        net.blobs[name].reshape(*array.shape)
        net.blobs[name].data[...] = array
    net.reshape()
    for key, array in fed.items():
        kind, name = split_key(key)
        if kind == PARAM:
            _feed(_learnable_blob(net, name, f"{source}: {key}"), "data", array, f"{source}: {key}")
        elif kind == TOP_DIFF:
            _feed(_loss_free_output(net, name, f"{source}: {key}"), "diff", array, f"{source}: {key}")
    return set(fed)


def what_goes_in(net: Net, backward: bool) -> dict[str, np.ndarray]:
    """The arrays that ``feed`` puts in, as the net holds them; with those that ``backward`` starts from."""
    arrays = IN.keyed({name: net.blobs[name].data for name in fed_from_outside(net)})
    arrays |= PARAM.keyed({name: blob.data for name, blob in net.learnable.items()})
    if backward and not net.has_loss:
        arrays |= TOP_DIFF.keyed({name: net.blobs[name].diff for name in net.outputs})
    return arrays


def what_comes_out(net: Net, backward: bool) -> dict[str, np.ndarray]:
    """The blobs of the net after a forward pass, with their diffs and those of the learnable blobs after backward."""
    blobs = {name: blob for name, blob in net.blobs.items() if name not in net.copies}
    arrays = DATA.keyed({name: blob.data for name, blob in blobs.items()})
    if backward:
        arrays |= DIFF.keyed({name: blob.diff for name, blob in blobs.items()})
        arrays |= PDIFF.keyed({name: blob.diff for name, blob in net.learnable.items()})
    return arrays


def fed_from_outside(net: Net) -> list[str]:
    """The blobs that keep what is put into them: tops of Input layers, and those that are filled once, if ever."""
    fillers = {top: source.filler for top, source in net.sources.items()}
    return [top for top, filler in fillers.items() if filler is None or filler.type == "constant"]


def _why_not_fed(net: Net, blob: str) -> str:
    names = ", ".join(fed_from_outside(net)) or "none"
    for placed in net.placed:
        if blob in placed.spec.tops:
            return f"{placed.spec} makes the blob {blob!r} in every forward pass; blobs that can be fed: {names}"
    return f"the net has no blob {blob!r}; blobs that can be fed: {names}"


def _learnable_blob(net: Net, name: str, where: str) -> Blob:
    blobs, layer = net.learnable, layer_of(name)
    if name not in blobs:
        count = len(net.params.get(layer, []))
        raise NetError(f"{where}: the net has no such learnable blob (layer {layer!r} has {count})")
    return blobs[name]


def _loss_free_output(net: Net, name: str, where: str) -> Blob:
    if net.has_loss:
        raise NetError(f"{where}: backward starts at this net's losses, not at given diffs")
    if name not in net.outputs:
        raise NetError(f"{where}: the net has no output {name!r}: it has {', '.join(net.outputs)}")
    return net.blobs[name]


def _feed(blob: Blob, part: str, array: np.ndarray, where: str) -> None:
    if array.shape != blob.shape:
        raise NetError(f"{where} has the shape {array.shape}, the net's blob has {blob.shape}")
    getattr(blob, part)[...] = array


def draw_inputs(net: Net, fed: Collection[str], seed: int = 0) -> None:
    """Fill what is not ``fed``: labels with labels, other inputs from a normal distribution.

    So are the diffs from which the backward of a net without a loss starts; if some of them are fed, the others are 0.
    """
    random = np.random.default_rng(seed)
    for name in net.inputs:
        if IN.key(name) not in fed:
            blob = net.blobs[name]
            blob.data[...] = _draw(net, name, blob.shape, random)
    if not net.has_loss and not any(split_key(key)[0] == TOP_DIFF for key in fed):
        for name in net.outputs:
            net.blobs[name].diff[...] = random.normal(size=net.blobs[name].shape)


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
    if kind == PROBABILITIES:
        return random.uniform(0.05, 1.0, shape)
    return random.normal(size=shape)


def _readers(net: Net, blob: str) -> list[tuple[StandardLayer | PythonLayer, int, tuple[int, ...]]]:
    """The layers that read ``blob``, directly or through a Split; at which bottom, and the shape of their first."""
    found = []
    for placed in net.placed:
        for position, bottom in enumerate(placed.spec.bottoms):
            if bottom != blob:
                continue
            if placed.spec.is_inserted:
                for top in placed.spec.tops:
                    found += _readers(net, top)
            else:
                found.append((placed.layer, position, placed.bottoms[0].shape))
    return found


def _held(reader: StandardLayer | PythonLayer, position: int) -> str | None:
    """What bottom ``position`` of the layer takes: a kind of labels, PROBABILITIES, or None for any data."""
    if position == 0 and _takes_probabilities(reader):
        return PROBABILITIES
    if isinstance(reader, StandardLayer):
        return reader.kind.labels.get(position)
    if not hasattr(reader.instance, "params") or reader.allow_force_backward(position):
        return None
    if position == 2:
        return REAL
    target = reader.instance.params.get("target", "index")
    return {"index": CLASS_INDEX, "multi_label": BINARY, "distribution": DISTRIBUTION}[target]


def _takes_probabilities(reader: StandardLayer | PythonLayer) -> bool:
    if isinstance(reader, StandardLayer):
        return reader.type == "MultinomialLogisticLoss"
    return issubclass(reader.layer_class, CrossEntropyLossLayer)


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
