"""What a net is fed: arrays from an ``.npz`` (``draw.py`` draws them where none are given).

Keys of an ``.npz``: what goes in is ``in/<blob>``, ``param/<layer>/<i>``, and ``top_diff/<blob>`` (for a net without a
loss, the diffs of its outputs); what comes out is ``data/<blob>``, ``diff/<blob>``, ``pdiff/<layer>/<i>``,
``param_after/<layer>/<i>`` (stored blobs that the forward pass changes) and ``total_loss``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net.backward_need import has_loss
from caffe_tools.net.blob import Blob
from caffe_tools.net.net import Net
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.standard.data.input import Source

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
