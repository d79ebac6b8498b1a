"""The embedded net: pycaffe's ``Net``, run layer by layer without Caffe.

Source: Caffe src/caffe/net.cpp (``Init``, ``ForwardFromTo``, ``BackwardFromTo``), python/caffe/pycaffe.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_tools import prototxt, standard
from caffe_tools.binaryproto import caffemodel
from caffe_tools.errors import NetError
from caffe_tools.net import learnable as stored_blobs
from caffe_tools.net.backward_need import BackwardNeed, backward_need
from caffe_tools.net.blob import Blob
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.net.user_modules import import_module, is_allowed
from caffe_tools.prototxt.layer_spec import PHASES, LayerSpec
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import read_net

TRAIN, TEST = 0, 1
"""The phases, numbered as in pycaffe."""

EmbeddedLayer = StandardLayer | SourceLayer | PythonLayer


class Net:
    """pycaffe's net: ``Net(prototxt, phase, level, stages, weights)`` or ``Net(prototxt, weights, phase)``.

    ``prototxt`` is a path or a parsed message; ``phase`` is TRAIN or TEST, as number or name, and where it is not
    given the prototxt's own state, else TEST. Python layers are imported from ``caffe_layers`` and from
    ``allow_modules`` alone. ``input_shapes`` are shapes of blobs that the net is fed, where it does not tell them (a
    database does) or tells others. ``seed`` makes fillers and Dropout repeat.

    Raises PrototxtError, NetError or CaffemodelError, each with one line that says what is wrong and where.
    """

    def __init__(
        self,
        net: str | os.PathLike | Message,
        phase: int | str | os.PathLike | None = None,
        level: int | str | None = None,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike | None = None,
        *,
        allow_modules: Sequence[str] = (),
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(phase, (str, os.PathLike)) and phase not in PHASES:  # the older order
            phase, level, weights = level, None, phase
        message = net if isinstance(net, Message) else prototxt.load(net)
        directory = "" if isinstance(net, Message) else str(Path(net).parent)
        self.spec = read_net(message, _phase_name(phase), level or 0, stages or ())
        self.name, self.phase = self.spec.name, self.spec.phase
        self.random = np.random.default_rng(seed)
        """What fillers and Dropout draw from."""
        self._allow_modules = tuple(allow_modules)
        self._input_shapes = dict(input_shapes or {})
        self.blobs: dict[str, Blob] = {}
        self.layers: list[EmbeddedLayer] = []
        self.loss_weights: list[list[float]] = []
        self._stored = {} if weights is None else caffemodel.read(weights)
        for module in allow_modules:
            import_module(module)  # it may register layer types
        self._refuse_unknown_types()
        for layer in self.spec.layers:
            self._add_layer(layer, directory)
        stored_blobs.share_by_name(self.layers)
        self._need = backward_need(self)
        stored_blobs.load(self.layers, self._stored, weights or "")
        self._stored = {}

    # Building -------------------------------------------------------------------------------------------------------

    def _add_layer(self, spec: LayerSpec, directory: str) -> None:
        layer = self._make_layer(spec, directory)
        for top in spec.tops:
            self.blobs.setdefault(top, Blob())
        bottoms, tops = self._bottoms(spec), self._tops(spec)
        layer.reshape(bottoms, tops)
        index = len(self.layers)
        self.layers.append(layer)
        weights = spec.loss_weights or [1.0 if layer.is_loss and i == 0 else 0.0 for i in range(len(tops))]
        if len(weights) != len(tops):
            raise spec.error(
                f"loss_weight is given {len(weights)} times for {len(tops)} tops: give it once for each, or not at all"
            )
        self.loss_weights.append(weights)
        self._set_loss_diffs(index)

    def _refuse_unknown_types(self) -> None:
        """NetError that lists every layer whose type is not covered."""
        unknown = [spec for spec in self.spec.layers if spec.type != "Python" and standard.known_type(spec) is None]
        if not unknown:
            return
        hint = "see `caffe-layers layers` for the types that are, or teach it with caffe_tools.layer_type"
        if len(unknown) == 1:
            raise unknown[0].error(f"layer type {unknown[0].type!r} is not covered; {hint}")
        listed = ", ".join(f"{spec.name!r} ({spec.type}, {spec.position})" for spec in unknown)
        raise NetError(f"{len(unknown)} layers have types that are not covered: {listed}; {hint}")

    def _make_layer(self, spec: LayerSpec, directory: str) -> EmbeddedLayer:
        kind = standard.known_type(spec)
        if spec.type == "Python" and (kind is None or is_allowed(spec, self._allow_modules)):
            return PythonLayer(spec, self._allow_modules)
        if kind.is_source:
            return SourceLayer(spec, self.random, directory, self._input_shapes)
        return StandardLayer(spec, self.random, directory, self._stored.get(spec.name, ()))

    def _set_loss_diffs(self, index: int) -> None:
        for top, weight in zip(self._tops(self.spec.layers[index]), self.loss_weights[index], strict=True):
            if weight:
                top.diff[...] = weight

    def _bottoms(self, spec: LayerSpec) -> list[Blob]:
        return [self.blobs[name] for name in spec.bottoms]

    def _tops(self, spec: LayerSpec) -> list[Blob]:
        return [self.blobs[name] for name in spec.tops]

    # pycaffe's views ------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, list[Blob]]:
        """Layer name → its learnable blobs, for the layers that have some."""
        return {layer.spec.name: list(layer.blobs) for layer in self.layers if layer.blobs}

    @property
    def layer_dict(self) -> dict[str, EmbeddedLayer]:
        return {layer.spec.name: layer for layer in self.layers}

    @property
    def _layer_names(self) -> list[str]:
        return [layer.name for layer in self.spec.layers]

    @property
    def inputs(self) -> list[str]:
        """The tops of the Input layers, and of those that read files or databases in Caffe: here all are fed."""
        return [
            top
            for layer in self.layers
            if isinstance(layer, SourceLayer)
            for top, source in zip(layer.spec.tops, layer.sources, strict=True)
            if source.filler is None
        ]

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer reads, in the order in which they are made."""
        left: dict[str, None] = {}
        for layer in self.spec.layers:
            for bottom in layer.bottoms:
                left.pop(bottom, None)
            left.update(dict.fromkeys(layer.tops))
        return list(left)

    @property
    def bottom_names(self) -> dict[str, list[str]]:
        return {layer.name: layer.bottoms for layer in self.spec.layers}

    @property
    def top_names(self) -> dict[str, list[str]]:
        return {layer.name: layer.tops for layer in self.spec.layers}

    @property
    def backward_need(self) -> BackwardNeed:
        """Which layers run backward, and toward which bottoms and learnable blobs."""
        return self._need

    @property
    def total_loss(self) -> float:
        """Σ loss_weight · Σ top, of the tops as they stand."""
        total = 0.0
        for spec, weights in zip(self.spec.layers, self.loss_weights, strict=True):
            for top, weight in zip(spec.tops, weights, strict=True):
                if weight:
                    total += weight * float(np.sum(self.blobs[top].data, dtype=np.float64))
        return total

    # Running --------------------------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Carry the shapes of the inputs through the net."""
        for index in range(len(self.layers)):
            self._reshape_layer(index)

    def _reshape_layer(self, index: int) -> None:
        spec = self.spec.layers[index]
        tops = self._tops(spec)
        before = [top.diff for top in tops]
        self.layers[index].reshape(self._bottoms(spec), tops)
        if any(top.diff is not diff for top, diff in zip(tops, before, strict=True)):
            self._set_loss_diffs(index)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Run the layers from ``start`` to ``end`` (names; default: all) and return the outputs, or ``end``'s tops,
        and whatever ``blobs`` names. ``inputs`` are arrays for the input blobs, of their shapes."""
        first, last = self._range(start, end)
        if inputs:
            self._set_arrays(inputs, self.inputs, "input", "data")
        self._forward(first, last)
        names = list(self.top_names[end]) if end is not None else self.outputs
        return {name: self._blob(name).data for name in [*names, *(blobs or [])]}

    def _forward(self, first: int, last: int) -> float:
        for index in range(first, last + 1):
            spec = self.spec.layers[index]
            self._reshape_layer(index)
            self.layers[index].forward(self._bottoms(spec), self._tops(spec))
        return self.total_loss

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **top_diffs: Any
    ) -> dict[str, np.ndarray]:
        """Run backward from ``start`` down to ``end`` (names; default: all) and return the diffs of the inputs, or
        of ``end``'s bottoms, and of whatever ``diffs`` names. ``top_diffs`` are arrays for the outputs' diffs."""
        last, first = self._range(end, start)
        if top_diffs:
            self._set_arrays(top_diffs, self.outputs, "output", "diff")
        self._backward(first, last)
        names = list(self.bottom_names[end]) if end is not None else self.inputs
        return {name: self._blob(name).diff for name in [*names, *(diffs or [])]}

    def _backward(self, first: int, last: int) -> None:
        for index in range(first, last - 1, -1):
            if not self._need.layers[index]:
                continue
            spec = self.spec.layers[index]
            self.layers[index].backward(
                self._tops(spec), self._need.bottoms[index], self._bottoms(spec), self._need.learn[index]
            )

    def clear_param_diffs(self) -> None:
        for layer in self.layers:
            for blob in layer.blobs:
                blob.diff[...] = 0

    def _range(self, start: str | None, end: str | None) -> tuple[int, int]:
        names = self._layer_names
        for name in (start, end):
            if name is not None and name not in names:
                raise NetError(f"the net has no layer {name!r}: it has {', '.join(names)}")
        return (names.index(start) if start else 0), (names.index(end) if end else len(names) - 1)

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f"the net has no blob {name!r}: it has {', '.join(self.blobs)}")
        return self.blobs[name]

    def _set_arrays(self, arrays: Mapping[str, Any], names: Sequence[str], what: str, part: str) -> None:
        for name, array in arrays.items():
            if name not in names:
                raise NetError(f"the net has no {what} {name!r}: it has {', '.join(names) or 'none'}")
            blob, array = self.blobs[name], np.asarray(array)
            if array.shape != blob.shape:
                raise NetError(
                    f"{what} {name!r} has the shape {blob.shape}, not {array.shape}:"
                    f" call net.blobs[{name!r}].reshape(…) and net.reshape() first"
                )
            getattr(blob, part)[...] = array

    # Weights --------------------------------------------------------------------------------------------------------

    def copy_from(self, path: str | os.PathLike) -> None:
        """Load the learnable blobs of a .caffemodel into the layers of the same names; others keep theirs."""
        stored_blobs.load(self.layers, caffemodel.read(path), path)

    def share_with(self, other: Net) -> None:
        """Use the data of the other net's learnable blobs, where the layers' names agree."""
        stored_blobs.share_with(self.layers, other.params)

    def save(self, path: str | os.PathLike) -> None:
        """Write the learnable blobs as a .caffemodel that Caffe reads."""
        stored_blobs.save(self.layers, path, self.name)


def _phase_name(phase: int | str | None) -> str | None:
    if phase is None or phase in PHASES:
        return phase
    if isinstance(phase, int) and 0 <= phase < len(PHASES):
        return PHASES[phase]
    raise NetError(f"phase {phase!r} is none of TRAIN (0) and TEST (1)")
