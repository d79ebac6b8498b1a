"""A standard layer inside the embedded net: its graph, alone, in ONNX Runtime.

``backward`` runs the layer's forward nodes again together with their gradient, so that it needs nothing but the
bottoms, the parameters and the diffs of the tops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime

from caffe_tools import standard
from caffe_tools.gradient import gradients
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.session import make_session, run
from caffe_tools.net import fillers
from caffe_tools.net.blob import Blob
from caffe_tools.net.learnable import adopted
from caffe_tools.prototxt.fields import Values
from caffe_tools.prototxt.layer_spec import LayerSpec


class StandardLayer:
    """One layer whose type stands in ``standard``; pycaffe's ``net.layers[i]``: ``type`` and ``blobs``."""

    def __init__(
        self, spec: LayerSpec, random: np.random.Generator, directory: str, stored: Sequence[np.ndarray] = ()
    ) -> None:
        self.spec = spec
        self.type = spec.type
        self.kind = standard.known_type(spec)
        self.blobs: list[Blob] = []
        self._stored = stored
        self.is_loss = self.kind.is_loss
        self.layer = standard.Layer(spec, self.kind, self, directory)
        self._random = random
        self._shapes: list[tuple[int, ...]] | None = None
        self._random_values: list[np.ndarray] = []
        self._states: dict[int, np.ndarray] = {}
        self._states_before: dict[int, np.ndarray] = {}
        self._kept_bottoms: dict[int, np.ndarray] = {}

    def allow_force_backward(self, index: int) -> bool:
        return index not in self.kind.labels

    def learns(self, index: int) -> bool:
        """Whether a gradient may change stored blob ``index``; it does not change BatchNorm's statistics."""
        return index not in self.layer.statistics

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Build the layer for the bottoms' shapes (where they changed) and give the tops theirs."""
        shapes = [bottom.shape for bottom in bottoms]
        if shapes != self._shapes:
            self._shapes = None  # so that a layer that could not be built is not taken for the one before
            self._build(shapes)
            self._forward: onnxruntime.InferenceSession | None = None
            self._backward: dict[tuple, onnxruntime.InferenceSession | None] = {}
            # how many rows a DetectionOutput or a Filter finds is known when it has run: until then 1, as in Caffe
            self._top_shapes = [
                tuple(1 if isinstance(dim, str) else dim for dim in self._op.shape(top)) for top in self._tops
            ]
            self._check_in_place(bottoms, tops)
            self._states = {index: self._state(index, shape) for index, shape in self._state_shapes.items()}
            self._states_before = self._states
            self._shapes = shapes
        for top, shape in zip(tops, self._top_shapes, strict=True):
            top.reshape(*shape)

    def _check_in_place(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        for top, shape, name in zip(tops, self._top_shapes, self.spec.tops, strict=True):
            if top.shape != shape and any(top is bottom for bottom in bottoms):
                raise self.spec.error(
                    f"it cannot work in place: its top {name!r} has the shape {shape}, not the bottom's {top.shape}:"
                    " give the top another name"
                )

    def _state(self, index: int, shape: tuple[int, ...]) -> np.ndarray:
        """What the last forward pass left, or zeros where there was none or its shape was another."""
        kept = self._states.get(index)
        return kept if kept is not None and kept.shape == shape else np.zeros(shape, np.float32)

    def _build(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._op = Builder(name=self.spec.name)
        self._parameters: list[ir.Value] = []
        self._updates: dict[int, ir.Value] = {}
        self._random_inputs: list[ir.Value] = []
        self._state_shapes: dict[int, tuple[int, ...]] = {}
        self._kept: dict[int, ir.Value] = {}
        self._bottoms = [self._op.input(f"bottom{i}", shape) for i, shape in enumerate(shapes)]
        self._tops = standard.build(self._op, self.layer, self._bottoms)

    # What a layer asks of its host (registry.Host) ------------------------------------------------------------------

    def parameter(self, index: int, shape: tuple[int, ...], filler: Values) -> ir.Value:
        if index == len(self.blobs):
            blob = Blob(shape)
            found = adopted(self._stored, index, shape)
            if found is None:
                blob.data[...] = fillers.fill(shape, filler, self._random, self.spec.place)
            else:
                blob.data = found
            self.blobs.append(blob)
        elif self.blobs[index].shape != shape:
            raise self.spec.error(
                f"its learnable blob {index} has the shape {self.blobs[index].shape}, but these bottoms need {shape}"
            )
        self._parameters.append(self._op.input(f"parameter{index}", shape))
        return self._parameters[-1]

    def update(self, index: int, value: ir.Value) -> None:
        self._updates[index] = value

    def random_uniform(self, like: ir.Value) -> ir.Value:
        self._random_inputs.append(self._op.input(f"random{len(self._random_inputs)}", self._op.shape(like)))
        return self._random_inputs[-1]

    def state(self, index: int, shape: Sequence[int]) -> ir.Value:
        self._state_shapes[index] = tuple(shape)
        return self._op.input(f"state{index}", shape)

    def keep(self, index: int, value: ir.Value) -> None:
        self._kept[index] = value

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def random_values(self) -> list[np.ndarray]:
        """The random numbers of the last forward pass."""
        return self._random_values

    @property
    def states(self) -> dict[int, np.ndarray]:
        """What the last forward pass left for the next one (the hidden state of a recurrent layer), by index."""
        return self._states

    @states.setter
    def states(self, arrays: Mapping[int, np.ndarray]) -> None:
        self._states = {index: arrays[index] for index in self._states}

    def draw(self) -> list[np.ndarray]:
        """Draw the random numbers of the next pass (forward does), and return them."""
        draw = self._random.random
        self._random_values = [draw(self._op.shape(value), np.float32) for value in self._random_inputs]
        return self._random_values

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._check_labels(bottoms)
        self._kept_bottoms = {
            index: bottom.data.copy() for index, bottom in enumerate(bottoms) if any(bottom is top for top in tops)
        }
        self.draw()
        if self._forward is None and tops:
            for index, top in enumerate(self._tops):
                self._op.output(top, f"top{index}")
            for index, value in self._updates.items():
                self._op.output(value, f"update{index}")
            for index, value in self._kept.items():
                self._op.output(value, f"kept{index}")
            self._forward = make_session(self._op.graph) if tops else None
        self._states_before = self._states
        results = run(self._forward, None, self._feeds(bottoms), f"{self.spec.place} forward") if tops else []
        for top, result in zip(tops, results, strict=False):
            top.reshape(*result.shape)
            top.data[...] = result
        for index, result in zip(self._updates, results[len(tops) :], strict=False):
            self.blobs[index].data[...] = result
        self._states = dict(zip(self._kept, results[len(tops) + len(self._updates) :], strict=True))

    def _check_labels(self, bottoms: Sequence[Blob]) -> None:
        """Where Caffe would read beside its scores, say which label is wrong."""
        for index, (classes, ignored) in self.layer.label_ranges.items():
            labels = np.trunc(bottoms[index].data)
            is_right = (labels >= 0) & (labels < classes)
            if ignored is not None:
                is_right |= labels == ignored
            if not is_right.all():
                place = tuple(int(i) for i in np.argwhere(~is_right)[0])
                raise self.spec.error(
                    f"bottom {self.spec.bottoms[index]!r} holds the label {bottoms[index].data[place]:g} at {place}:"
                    f" labels are 0 to {classes - 1}" + ("" if ignored is None else f", or {ignored} (ignored)")
                )

    def backward(
        self, tops: Sequence[Blob], propagate_down: Sequence[bool], bottoms: Sequence[Blob], learn: Sequence[bool]
    ) -> None:
        """Write the diffs of the bottoms chosen by ``propagate_down``, add to those of the blobs that ``learn``."""
        key = (tuple(propagate_down), tuple(learn))
        if key not in self._backward:
            self._backward[key] = self._build_backward(*key)
        results = self._run_backward(self._backward[key], bottoms, tops)
        for index, bottom in enumerate(bottoms):
            if propagate_down[index]:
                bottom.diff[...] = results.get(f"bottom_diff{index}", 0)
        for index, blob in enumerate(self.blobs):
            if learn[index] and f"parameter_diff{index}" in results:
                blob.diff += results[f"parameter_diff{index}"]

    def _run_backward(
        self, session: onnxruntime.InferenceSession | None, bottoms: Sequence[Blob], tops: Sequence[Blob]
    ) -> dict[str, np.ndarray]:
        if session is None:
            return {}
        feeds = self._feeds(bottoms)
        feeds |= {f"top_diff{i}": top.diff for i, top in enumerate(tops)}
        wanted = {value.name for value in session.get_inputs()}
        feeds = {name: value for name, value in feeds.items() if name in wanted}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, run(session, names, feeds, f"{self.spec.place} backward"), strict=True))

    def _build_backward(
        self, propagate_down: tuple[bool, ...], learn: tuple[bool, ...]
    ) -> onnxruntime.InferenceSession | None:
        """None where no gradient flows."""
        self._build(self._shapes)
        op = self._op
        seeds = {}
        for index, top in enumerate(self._tops):
            diff = op.input(f"top_diff{index}", op.shape(top))
            # a layer may hand one value out several times (Split): its diffs add up
            seeds[top] = op.Add(seeds[top], diff) if top in seeds else diff
        by = {f"bottom_diff{i}": value for i, value in enumerate(self._bottoms) if propagate_down[i]}
        by |= {f"parameter_diff{i}": value for i, value in enumerate(self._parameters) if learn[i]}
        for name, diff in zip(by, gradients(op, seeds, list(by.values())), strict=True):
            if diff is not None:
                op.output(diff, name)
        op.remove_unused()
        return make_session(op.graph) if op.graph.outputs else None

    def _feeds(self, bottoms: Sequence[Blob]) -> dict[str, np.ndarray]:
        feeds = {f"bottom{i}": self._kept_bottoms.get(i, bottom.data) for i, bottom in enumerate(bottoms)}
        feeds |= {f"parameter{i}": blob.data for i, blob in enumerate(self.blobs)}
        feeds |= {f"random{i}": values for i, values in enumerate(self._random_values)}
        feeds |= {f"state{i}": values for i, values in self._states_before.items()}
        return feeds
