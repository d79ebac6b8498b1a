"""The embedded net: pycaffe's ``Net``, run layer by layer without Caffe.

Source: Caffe src/caffe/net.cpp (``Init``, ``ForwardFromTo``, ``BackwardFromTo``), python/caffe/pycaffe.py.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_tools import standard
from caffe_tools.binaryproto import caffemodel
from caffe_tools.errors import NetError, choice, raise_all
from caffe_tools.net import learnable as stored_blobs
from caffe_tools.net.backward_need import decide_backward
from caffe_tools.net.blob import Blob
from caffe_tools.net.layer import EmbeddedLayer, PlacedLayer
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.refusals import layer_faults
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.net.user_modules import import_module, is_allowed
from caffe_tools.net.weights import Loaded, WeightsWarning
from caffe_tools.prototxt import load
from caffe_tools.prototxt.layer_spec import PHASES, LayerSpec
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import NetSpec, survey
from caffe_tools.standard.data.input import Source
from caffe_tools.standard.form import field_faults
from caffe_tools.standard.limits import naming_extremes

TRAIN, TEST = 0, 1
"""The phases, numbered as in pycaffe."""


class Net:
    """pycaffe's net: ``Net(prototxt, phase, level, stages, weights)`` or ``Net(prototxt, weights, phase)``.

    ``prototxt`` is a path or a parsed message; ``phase`` is TRAIN or TEST, as number or name, and where it is not given
    the prototxt's own state, else TEST. ``level`` and ``stages`` choose layers by their rules, ``weights`` is a
    .caffemodel. The net ends at the blobs ``to``, where there are some. Python layers are imported from
    ``caffe_layers`` and from ``allow_modules`` alone. ``input_shapes`` are shapes of blobs that the net is fed, where
    it does not tell them (a database does) or tells others. ``seed`` makes fillers and Dropout repeat.

    Raises PrototxtError, NetError or CaffemodelError, which say what is wrong and where, in a line for each fault.
    """

    def __init__(
        self,
        prototxt: str | os.PathLike | Message,
        phase: int | str | os.PathLike | None = None,
        level: int | str | None = None,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike | None = None,
        *,
        to: Sequence[str] = (),
        allow_modules: Sequence[str] = (),
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(phase, (str, os.PathLike)) and phase not in PHASES:  # the older order
            weights, phase, level = phase, level, None
        message = prototxt if isinstance(prototxt, Message) else load(prototxt)
        self.directory = "" if isinstance(prototxt, Message) else str(Path(prototxt).parent)
        self.spec = self._read(message, _phase_name(phase), int(level or 0), stages or (), to, allow_modules)
        self.name, self.phase = self.spec.name, self.spec.phase
        self.random = np.random.default_rng(seed)
        """What fillers and Dropout draw from."""
        self._allow_modules = tuple(allow_modules)
        self._input_shapes = dict(input_shapes or {})
        self.blobs: dict[str, Blob] = {}
        """Every blob by its name, in the order in which they are made."""
        self.placed: list[PlacedLayer] = []
        """The layers in order, each with its blobs and with what backward asks of it."""
        stored = {} if weights is None else caffemodel.read(weights)
        for spec in self.spec.layers:
            self._place(self._make_layer(spec, stored.get(spec.name, ())))
        stored_blobs.share_by_name(self.layers)
        decide_backward(self.placed, self.spec.force_backward)
        self.given_weights: set[int] = set()
        """The memory of the learnable blobs that were loaded or fed."""
        self.loaded = None if weights is None else self._load(stored, weights)
        """What became of ``weights``."""

    # Building -------------------------------------------------------------------------------------------------------

    def _read(
        self,
        message: Message,
        phase: str | None,
        level: int,
        stages: Sequence[str],
        to: Sequence[str],
        allow_modules: Sequence[str],
    ) -> NetSpec:
        """The layers of the phase; NetError that lists all that is refused in them."""
        failed: dict[str, NetError] = {}
        for module in allow_modules:
            try:
                import_module(module)  # it may register layer types
            except NetError as error:
                failed[module] = error
        spec, faults = survey(message, phase, level, stages, to)
        layers = spec.layers
        raise_all([*failed.values(), *faults, *layer_faults(layers, allow_modules, failed), *field_faults(layers)])
        return spec.with_splits()

    def _make_layer(self, spec: LayerSpec, stored: Sequence[np.ndarray]) -> EmbeddedLayer:
        kind = standard.known_type(spec)
        if kind is None or (spec.type == "Python" and is_allowed(spec, self._allow_modules)):
            return PythonLayer(spec, self._allow_modules)
        if kind.is_source:
            return SourceLayer(spec, kind, self.random, self.directory, self._input_shapes)
        return StandardLayer(spec, kind, self.random, self.directory, stored)

    def _place(self, layer: EmbeddedLayer) -> None:
        spec = layer.spec
        bottoms = [self.blobs[name] for name in spec.bottoms]
        tops = [self.blobs.setdefault(name, Blob()) for name in spec.tops]
        with naming_extremes(spec):
            layer.reshape(bottoms, tops)
        weights = spec.loss_weights or [1.0 if layer.is_loss and i == 0 else 0.0 for i in range(len(tops))]
        if len(weights) != len(tops):
            raise spec.error(
                f"loss_weight is given {len(weights)} times for {len(tops)} tops: give it once for each, or not at all"
            )
        self.placed.append(PlacedLayer(layer, bottoms, tops, weights))
        self.placed[-1].set_loss_diffs()

    # pycaffe's views ------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[EmbeddedLayer]:
        return [placed.layer for placed in self.placed]

    @property
    def params(self) -> dict[str, list[Blob]]:
        """Layer name → its learnable blobs, for the layers that have some."""
        return {placed.name: list(placed.layer.blobs) for placed in self.placed if placed.layer.blobs}

    @property
    def layer_dict(self) -> dict[str, EmbeddedLayer]:
        return {placed.name: placed.layer for placed in self.placed}

    @property
    def _layer_names(self) -> list[str]:
        return [placed.name for placed in self.placed]

    @property
    def inputs(self) -> list[str]:
        """The tops of the Input layers, and of those that read files or databases in Caffe: here all are fed."""
        return [top for top, source in self.sources.items() if source.filler is None]

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer reads, in the order in which they are made."""
        left: dict[str, None] = {}
        for placed in self.placed:
            for bottom in placed.spec.bottoms:
                left.pop(bottom, None)
            left.update(dict.fromkeys(placed.spec.tops))
        return list(left)

    @property
    def bottom_names(self) -> dict[str, list[str]]:
        return {placed.name: placed.spec.bottoms for placed in self.placed}

    @property
    def top_names(self) -> dict[str, list[str]]:
        return {placed.name: placed.spec.tops for placed in self.placed}

    # What it is made of ---------------------------------------------------------------------------------------------

    @property
    def sources(self) -> dict[str, Source]:
        """The blobs that layers make from nothing, and what they are."""
        return {
            top: source
            for placed in self.placed
            if isinstance(placed.layer, SourceLayer)
            for top, source in zip(placed.spec.tops, placed.layer.sources, strict=True)
        }

    @property
    def copies(self) -> dict[str, str]:
        """The tops of the Split layers that stand in no prototxt → the blob that they are copies of."""
        return {top: p.spec.bottoms[0] for p in self.placed if p.spec.is_inserted for top in p.spec.tops}

    @property
    def learnable(self) -> dict[str, Blob]:
        """The learnable blobs of all layers by their names, ``<layer>/<i>``; a shared one under each."""
        return {name: blob for placed in self.placed for name, blob in placed.learnable.items()}

    @property
    def has_loss(self) -> bool:
        """Whether some layer is a loss or has a loss_weight, even one of 0; if not, backward starts at given diffs."""
        return any(placed.layer.is_loss or placed.spec.loss_weights for placed in self.placed)

    @property
    def runs_backward(self) -> bool:
        """Whether any layer does."""
        return any(placed.runs_backward for placed in self.placed)

    @property
    def total_loss(self) -> float:
        """Σ loss_weight · Σ top, of the tops as they stand."""
        total = 0.0
        for placed in self.placed:
            for top, weight in zip(placed.tops, placed.loss_weights, strict=True):
                if weight:
                    total += weight * float(np.sum(top.data, dtype=np.float64))
        return total

    # Running --------------------------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Carry the shapes of the inputs through the net."""
        for placed in self.placed:
            placed.reshape()

    def forward_data(self) -> None:
        """Run the layers that make data: each reshapes first, and may load its sample then."""
        for placed in self.placed:
            if placed.makes_data:
                placed.forward()

    def reshape_behind_data(self) -> None:
        """Carry the shapes of the data through the net, without disturbing the layers that made it."""
        for placed in self.placed:
            if not placed.makes_data:
                placed.reshape()

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Run the layers from ``start`` to ``end`` (names; default: all) and return the outputs, or ``end``'s tops,
        and whatever ``blobs`` names. ``inputs`` are arrays for the input blobs, of their shapes."""
        layers = self._between(start, end)
        self._set_arrays(inputs, self.inputs, "input", "data")
        for placed in layers:
            placed.forward()
        names = self.outputs if end is None else self.top_names[end]
        return {name: self._blob(name).data for name in [*names, *(blobs or [])]}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **top_diffs: Any
    ) -> dict[str, np.ndarray]:
        """Run backward from ``start`` down to ``end`` (names; default: all) and return the diffs of the inputs, or
        of ``end``'s bottoms, and of whatever ``diffs`` names. ``top_diffs`` are arrays for the outputs' diffs."""
        layers = self._between(end, start)
        self._set_arrays(top_diffs, self.outputs, "output", "diff")
        for placed in reversed(layers):
            placed.backward()
        names = self.inputs if end is None else self.bottom_names[end]
        return {name: self._blob(name).diff for name in [*names, *(diffs or [])]}

    def clear_param_diffs(self) -> None:
        for blob in self.learnable.values():
            blob.diff[...] = 0

    def _between(self, first: str | None, last: str | None) -> list[PlacedLayer]:
        names = self._layer_names
        for name in (first, last):
            if name is not None and name not in names:
                raise NetError(f"the net has no layer {name!r}: {choice(name, names)}")
        return self.placed[names.index(first) if first else 0 : names.index(last) + 1 if last else None]

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f"the net has no blob {name!r}: {choice(name, self.blobs)}")
        return self.blobs[name]

    def _set_arrays(self, arrays: Mapping[str, Any], names: Sequence[str], what: str, part: str) -> None:
        for name, array in arrays.items():
            if name not in names:
                raise NetError(f"the net has no {what} {name!r}: {choice(name, names)}")
            blob, array = self.blobs[name], np.asarray(array)
            if array.shape != blob.shape:
                raise NetError(
                    f"{what} {name!r} has the shape {blob.shape}, not {array.shape}:"
                    f" call net.blobs[{name!r}].reshape(…) and net.reshape() first"
                )
            getattr(blob, part)[...] = array

    # Weights --------------------------------------------------------------------------------------------------------

    def copy_from(self, path: str | os.PathLike) -> Loaded:
        """Load the learnable blobs of a .caffemodel into the layers of the same names; others keep theirs.

        Returns what became of them, and warns (WeightsWarning) where a layer of the net or of the file is left out.
        """
        return self._load(caffemodel.read(path), path)

    @property
    def at_fillers(self) -> tuple[str, ...]:
        """The layers that keep what their fillers drew, as nothing that was loaded or fed has all of their blobs."""
        return stored_blobs.without_weights(self.layers, self.given_weights)

    def _load(self, stored: stored_blobs.Stored, path: str | os.PathLike) -> Loaded:
        loaded = stored_blobs.load(self.layers, stored, path, self.given_weights)
        if not loaded.is_complete:
            warnings.warn(str(loaded), WeightsWarning, stacklevel=3)
        return loaded

    def share_with(self, other: Net) -> None:
        """Use the data of the other net's learnable blobs, where the layers' names agree."""
        stored_blobs.share_with(self.layers, other.params)
        self.given_weights |= other.given_weights

    def save(self, path: str | os.PathLike) -> None:
        """Write the learnable blobs as a .caffemodel that Caffe reads."""
        stored_blobs.save(self.layers, path, self.name)


def _phase_name(phase: object) -> str | None:
    if phase is None or (isinstance(phase, str) and phase in PHASES):
        return phase
    if isinstance(phase, int) and 0 <= phase < len(PHASES):
        return PHASES[phase]
    raise NetError(f"phase {phase!r} is none of TRAIN (0) and TEST (1)")
