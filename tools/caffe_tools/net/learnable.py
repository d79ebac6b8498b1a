"""The learnable blobs of a net: shared between layers and between nets, loaded and saved.

Source: Caffe src/caffe/net.cpp (``AppendParam``, ``CopyTrainedLayersFrom``, ``ShareTrainedLayersWith``, ``ToProto``),
src/caffe/blob.cpp (``ShapeEquals``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from caffe_tools.binaryproto import caffemodel
from caffe_tools.net.blob import Blob, memory_of
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.weights import Loaded

Stored = Mapping[str, Sequence[np.ndarray]]
"""The blobs of a .caffemodel by layer name (``caffemodel.read``)."""


def share_by_name(layers: Sequence[EmbeddedLayer]) -> None:
    """Blobs whose ``param`` blocks bear one name become one blob, its diff the sum over all its layers.

    Raises NetError where their shapes differ (with ``share_mode: PERMISSIVE``: their counts), or their multipliers.
    """
    owners: dict[str, tuple[EmbeddedLayer, int]] = {}
    for layer in layers:
        if len(layer.spec.params) > len(layer.blobs):
            raise layer.spec.error(
                f"it has {len(layer.spec.params)} param blocks, but {len(layer.blobs)} learnable blobs", "param"
            )
        for index in range(len(layer.blobs)):
            name = layer.spec.param(index).name
            if name and owners.setdefault(name, (layer, index)) != (layer, index):
                _share(layer, index, *owners[name])


def _share(layer: EmbeddedLayer, index: int, owner: EmbeddedLayer, owner_index: int) -> None:
    mine, theirs = layer.blobs[index], owner.blobs[owner_index]
    param, owner_param = layer.spec.param(index), owner.spec.param(owner_index)
    permissive = param.share_mode == "PERMISSIVE"
    if (mine.count != theirs.count) if permissive else (mine.shape != theirs.shape):
        raise layer.spec.error(
            f"param {param.name!r} is shared with layer {owner.spec.name!r}, whose blob has the shape {theirs.shape},"
            f" not {mine.shape}",
            "param",
        )
    for name in ("lr_mult", "decay_mult"):
        values = getattr(param, name), getattr(owner_param, name)
        if name in param.given & owner_param.given and values[0] != values[1]:
            raise layer.spec.error(
                f"param {param.name!r} has {name} {values[0]:g}, but {values[1]:g} in layer {owner.spec.name!r}",
                "param",
            )
    if mine.shape == theirs.shape:
        layer.blobs[index] = theirs
    else:
        mine.share_data(theirs)
        mine.share_diff(theirs)


def load(layers: Sequence[EmbeddedLayer], stored: Stored, path: str | os.PathLike, given: set[int]) -> Loaded:
    """Copy ``stored``, the blobs of the .caffemodel ``path``, into the layers of the same names; others keep theirs.

    ``given``, the memory of the blobs that got weights, grows by theirs. Raises NetError where a layer's blobs differ
    in number or shape.
    """
    taken = []
    for layer in layers:
        arrays = stored.get(layer.spec.name)
        if arrays is None:
            continue
        if len(arrays) != len(layer.blobs):
            raise layer.spec.error(
                f"{path} has {len(arrays)} blobs for it, but it has {len(layer.blobs)}: weights of another net"
            )
        for index, (array, blob) in enumerate(zip(arrays, layer.blobs, strict=True)):
            if not _shape_fits(array.shape, blob.shape):
                raise layer.spec.error(
                    f"its learnable blob {index} has the shape {blob.shape}, but {path} has {array.shape}:"
                    " weights of another net"
                )
            if memory_of(array) != blob.memory:  # it is not what the blob has adopted
                blob.data[...] = array.reshape(blob.shape)
            given.add(blob.memory)
        taken.append(layer.spec.name)
    return Loaded(
        source=str(path),
        taken=tuple(taken),
        at_fillers=without_weights(layers, given),
        ignored=tuple(name for name in stored if name not in taken),
        learnable=sum(bool(layer.blobs) for layer in layers),
    )


def without_weights(layers: Sequence[EmbeddedLayer], given: set[int]) -> tuple[str, ...]:
    """The names of the layers with a learnable blob whose memory is not among the ``given``."""
    return tuple(layer.spec.name for layer in layers if any(blob.memory not in given for blob in layer.blobs))


def adopted(arrays: Sequence[np.ndarray], index: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Stored array ``index`` itself, as data for a blob of ``shape``; None where there is none that fits.

    A net that is made together with its weights neither fills nor copies what it finds there.
    """
    if index < len(arrays) and _shape_fits(arrays[index].shape, shape):
        return arrays[index].reshape(shape)
    return None


def _shape_fits(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Old files pad shapes to four axes with dims of 1 in front."""
    if stored == wanted:
        return True
    return len(stored) == 4 and len(wanted) < 4 and stored == (1,) * (4 - len(wanted)) + tuple(wanted)


def share_with(layers: Sequence[EmbeddedLayer], theirs: Mapping[str, Sequence[Blob]]) -> None:
    """Let the layers use the data of another net's blobs, where the names agree; the diffs stay their own.

    Raises NetError where a layer's blobs differ in number or shape.
    """
    for layer in layers:
        others = theirs.get(layer.spec.name, layer.blobs)
        mine, wanted = [blob.shape for blob in layer.blobs], [blob.shape for blob in others]
        if mine != wanted:
            raise layer.spec.error(f"its learnable blobs have the shapes {mine}, but those of the other net {wanted}")
        for blob, other in zip(layer.blobs, others, strict=True):
            blob.share_data(other)


def save(layers: Sequence[EmbeddedLayer], path: str | os.PathLike, name: str) -> None:
    """Write the blobs as a .caffemodel that Caffe reads."""
    caffemodel.write(
        path, [(layer.spec.name, layer.type, [blob.data for blob in layer.blobs]) for layer in layers], name=name
    )
