"""A standard layer inside the embedded net: its graph, alone, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnxruntime

from caffe_tools.graph.session import run
from caffe_tools.net import fillers
from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import part_of
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.layer_graph import LayerGraph, Shape
from caffe_tools.net.learnable import adopted
from caffe_tools.net.shared_memory import share_backward, share_forward
from caffe_tools.prototxt.fields import Values
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.standard import Layer, LayerType, Sharing


class StandardLayer:
    """One layer whose type stands in ``standard``; pycaffe's ``net.layers[i]``: ``type`` and ``blobs``.

    It holds what lasts: the learnable blobs, the random numbers and states. A graph is built for each shape of the
    bottoms, and another one for each choice of gradients.
    """

    _graph: LayerGraph

    def __init__(
        self,
        spec: LayerSpec,
        kind: LayerType,
        random: np.random.Generator,
        directory: str,
        stored: Sequence[np.ndarray],
    ) -> None:
        self.spec, self.type, self.kind = spec, spec.type, kind
        self.is_loss = kind.is_loss
        self.blobs: list[Blob] = []
        self.fillers: list[Values] = []
        """What fills each learnable blob where no weights are given."""
        self.random_values: dict[str, np.ndarray] = {}
        """The random numbers of the last forward pass, by ``<layer>/<i>``; before the first, zeros."""
        self.states: dict[int, np.ndarray] = {}
        """What the last forward pass left for the next one (the hidden state of a recurrent layer), by index."""
        self._describe = partial(Layer, spec, kind, directory=directory)
        self._random, self._stored = random, stored
        self._shapes: list[Shape] | None = None
        self._forward: onnxruntime.InferenceSession | None = None
        self._backward: dict[tuple, onnxruntime.InferenceSession | None] = {}
        self._states_before: dict[int, np.ndarray] = {}
        self._kept_bottoms: dict[int, np.ndarray] = {}

    @property
    def layer(self) -> Layer:
        """What the layer's function said of it when it was built last."""
        return self._graph.layer

    @property
    def makes_data(self) -> bool:
        return False

    def allow_force_backward(self, index: int) -> bool:
        return index not in self.kind.labels

    def holds(self, index: int) -> str | None:
        return self.kind.holds(index)

    def learns(self, index: int) -> bool:
        """Whether a gradient may change stored blob ``index``; it does not change BatchNorm's statistics."""
        return index not in self.layer.statistics

    # Building -------------------------------------------------------------------------------------------------------

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Build the layer for the bottoms' shapes (where they changed) and give the tops theirs."""
        shapes = [bottom.shape for bottom in bottoms]
        if shapes != self._shapes:
            graph = self._build(shapes)
            self._check_in_place(bottoms, tops, graph.top_shapes)
            self._graph, self._shapes, self._top_shapes = graph, shapes, graph.top_shapes
            self._forward, self._backward, self._kept_bottoms = None, {}, {}
            self._set_random_values(np.zeros)
            kept = {i: array for i, array in self.states.items() if array.shape == graph.state_shapes.get(i)}
            self.states = {i: np.zeros(shape, np.float32) for i, shape in graph.state_shapes.items()} | kept
            self._states_before = self.states
        for top, shape in zip(tops, self._top_shapes, strict=True):
            top.reshape(*shape)
        if self.layer.sharing is Sharing.ALWAYS:
            tops[0].share_data(bottoms[0])
            tops[0].share_diff(bottoms[0])

    def _build(self, shapes: Sequence[Shape]) -> LayerGraph:
        return LayerGraph(self._describe, shapes, self._expect_blob)

    def _expect_blob(self, index: int, shape: Shape, filler: Values) -> None:
        """Make learnable blob ``index`` at the first build; NetError where it has another shape in a later one."""
        if index == len(self.blobs):
            blob = Blob(shape)
            found = adopted(self._stored, index, shape)
            if found is None:
                blob.data[...] = fillers.fill(shape, filler, self._random, self.spec.place)
            else:
                blob.adopt(found)
            self.blobs.append(blob)
            self.fillers.append(filler)
        elif self.blobs[index].shape != shape:
            raise self.spec.error(
                f"its learnable blob {index} has the shape {self.blobs[index].shape}, but these bottoms need {shape}"
            )

    def _check_in_place(self, bottoms: Sequence[Blob], tops: Sequence[Blob], shapes: Sequence[Shape]) -> None:
        for top, shape, name in zip(tops, shapes, self.spec.tops, strict=True):
            if top.shape != shape and any(top is bottom for bottom in bottoms):
                raise self.spec.error(
                    f"it cannot work in place: its top {name!r} has the shape {shape}, not the bottom's {top.shape}:"
                    " give the top another name"
                )

    # Running --------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw the random numbers of the next pass; forward does."""
        self._set_random_values(self._random.random)

    def _set_random_values(self, make: Callable[..., np.ndarray]) -> None:
        shapes = enumerate(self._graph.random_shapes)
        self.random_values = {part_of(self.spec.name, index): make(shape, np.float32) for index, shape in shapes}

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._states_before = self.states
        self.draw()
        self.repeat(bottoms, tops)

    def repeat(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Forward with the random numbers and states of the last pass."""
        self._check_labels(bottoms)
        self._kept_bottoms = {
            index: bottom.data.copy() for index, bottom in enumerate(bottoms) if any(bottom is top for top in tops)
        }
        if not tops:
            return
        if self.layer.sharing is not None:
            share_forward(self.layer.sharing, bottoms, tops, self.blobs)
            return
        if self._forward is None:
            self._forward = self._graph.forward_session()
        results = self._run(self._forward, bottoms, tops, "forward")
        for index, top in enumerate(tops):
            result = results[f"top{index}"]
            top.reshape(*result.shape)
            top.data[...] = result
        for index, blob in enumerate(self.blobs):
            if f"update{index}" in results:
                blob.data[...] = results[f"update{index}"]
        self.states = {i: results[f"kept{i}"] for i in self._graph.state_shapes}

    def in_double(self, bottoms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The tops computed in float64; GraphError where ONNX Runtime has an operator in float32 alone."""
        shapes = [bottom.shape for bottom in bottoms]
        session = LayerGraph(self._describe, shapes, lambda *of_blob: None, "float64").forward_session()
        feeds = {f"bottom{i}": bottom.astype(np.float64) for i, bottom in enumerate(bottoms)}
        feeds |= {f"parameter{i}": blob.data.astype(np.float64) for i, blob in enumerate(self.blobs)}
        wanted = {value.name for value in session.get_inputs()}
        names = [output.name for output in session.get_outputs() if output.name.startswith("top")]
        return run(session, names, {name: feeds[name] for name in wanted}, f"{self.spec.place} in float64")

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
        if self.layer.sharing is not None:
            if all(propagate_down):
                share_backward(self.layer.sharing, tops, bottoms)
            return
        key = (tuple(propagate_down), tuple(learn))
        if key not in self._backward:
            self._backward[key] = self._build(self._shapes or []).backward_session(*key)
        session = self._backward[key]
        results = self._run(session, bottoms, tops, "backward") if session is not None else {}
        for index, bottom in enumerate(bottoms):
            if propagate_down[index]:
                bottom.diff[...] = results.get(f"bottom_diff{index}", 0)
        for index, blob in enumerate(self.blobs):
            if learn[index] and f"parameter_diff{index}" in results:
                np.add(blob.diff, results[f"parameter_diff{index}"], out=blob.diff)

    def _run(
        self, session: onnxruntime.InferenceSession, bottoms: Sequence[Blob], tops: Sequence[Blob], what: str
    ) -> dict[str, np.ndarray]:
        kept = self._kept_bottoms if any(bottom is top for bottom in bottoms for top in tops) else {}
        feeds = {f"bottom{i}": kept.get(i, bottom.data) for i, bottom in enumerate(bottoms)}
        feeds |= {f"parameter{i}": blob.data for i, blob in enumerate(self.blobs)}
        feeds |= {f"random{i}": values for i, values in enumerate(self.random_values.values())}
        feeds |= {f"state{i}": values for i, values in self._states_before.items()}
        feeds |= {f"top_diff{i}": top.diff for i, top in enumerate(tops)}
        wanted = {value.name for value in session.get_inputs()}
        feeds = {name: value for name, value in feeds.items() if name in wanted}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, run(session, names, feeds, f"{self.spec.place} {what}"), strict=True))


def shares_learnable(layer: EmbeddedLayer) -> bool:
    """Whether its top is its learnable blob."""
    return isinstance(layer, StandardLayer) and layer.layer.sharing is Sharing.PARAMETER
