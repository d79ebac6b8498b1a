"""What a net is fed: arrays by the keys of an ``.npz`` (``keys.py``); ``draw.py`` draws those that are not given."""

from __future__ import annotations

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import DATA, DIFF, GOES_IN, IN, PARAM, PDIFF, TOP_DIFF, Arrays, is_known, layer_of, split_key
from caffe_tools.net.net import Net


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
            blob = _learnable_blob(net, name, f"{source}: {key}")
            _feed(blob, "data", array, f"{source}: {key}")
            net.given_weights.add(blob.memory)
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
    return [top for top, source in net.sources.items() if source.filler is None or source.is_filled_once]


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
