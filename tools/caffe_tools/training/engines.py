"""Two ways to run a training step: layer by layer, or as the exported training graph in ONNX Runtime.

Both leave the same in the net: its blobs, the diffs of its learnable blobs (added to what is there), BatchNorm's
statistics, and the random numbers that come next.
"""

from __future__ import annotations

import warnings

import numpy as np

from caffe_tools.errors import SolverError
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.graph.session import make_session, run
from caffe_tools.net.keys import DATA, IN, PARAM_AFTER, PDIFF, RANDOM, Arrays, split_key
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer, shares_learnable

MOST_GRAPHS = 16
"""How many graphs are kept for data whose shape changes."""


class LayerEngine:
    """Runs the net layer by layer: any net, Python layers as Python, labels checked."""

    def __init__(self, net: Net) -> None:
        self.net = net

    def forward(self) -> float:
        """One forward pass; the total loss."""
        self.net.forward()
        return self.net.total_loss

    def forward_backward(self) -> float:
        """One forward and one backward pass, adding to the diffs; the total loss before any update."""
        loss = self.forward()
        self.net.backward()
        return loss


class GraphEngine:
    """Runs the net as one ONNX graph that is fed the learnable blobs: data layers stay Python, nothing else does.

    The graph is built for the shapes of the data, and again when these change; the last few are kept.

    Raises SolverError for a recurrent layer, whose state no graph carries on, ExportError for a Python layer without an
    ONNX expression, GraphError for a layer without a gradient.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._graphs: dict[tuple, _Graph] = {}
        self._shapes: tuple | None = None
        self._built = 0
        self._sources = [placed for placed in net.placed if placed.makes_data]
        for layer in net.layers:
            if isinstance(layer, StandardLayer) and layer.states:
                raise SolverError(
                    f"{layer.spec.place}: it starts where its last forward pass ended, which a graph cannot:"
                    " train layer by layer (--engine layers)"
                )

    def forward(self) -> float:
        """One forward pass; the total loss."""
        self._run(add_diffs=False)
        return self.net.total_loss

    def forward_backward(self) -> float:
        """One forward and one backward pass, adding to the diffs; the total loss before any update."""
        self._run(add_diffs=True)
        return self.net.total_loss

    def _run(self, add_diffs: bool) -> None:
        self.net.forward_data()
        shapes = tuple(top.shape for placed in self._sources for top in placed.tops)
        if shapes != self._shapes:
            self.net.reshape_behind_data()
            self._shapes = shapes
        graph = self._graphs.pop(shapes, None) or self._build()
        self._graphs[shapes] = graph  # behind the others: the first is the one that was used longest ago
        if len(self._graphs) > MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        graph.run(add_diffs)

    def _build(self) -> _Graph:
        self._built += 1
        if self._built == MOST_GRAPHS + 1:
            names = ", ".join(repr(placed.name) for placed in self._sources)
            warnings.warn(
                f"the data (of {names}) has had {self._built} different shapes so far, and a graph is built for each:"
                " --engine layers may be faster",
                stacklevel=2,
            )
        return _Graph(self.net)


ENGINES: dict[str, type[LayerEngine | GraphEngine]] = {"layers": LayerEngine, "onnx": GraphEngine}


class _Graph:
    """The training graph of a net for the shapes that its data has now, and where its numbers come from and go."""

    def __init__(self, net: Net) -> None:
        self._net, self._learnable = net, net.learnable
        self._standard = [layer for layer in net.layers if isinstance(layer, StandardLayer)]
        exported = export(net, ExportOptions(training=True, random_inputs=True, parameter_inputs=True))
        self._session = make_session(exported.model)
        self._inputs = exported.inputs
        # of a Parameter layer it is the diff of its top, which a reader sets
        parameters = [placed for placed in net.placed if shares_learnable(placed.layer)]
        self._diff_is_set = {name for placed in parameters for name in placed.learnable}
        learn = {
            PDIFF.key(name)
            for placed in net.placed
            for name, learns in zip(placed.learnable, placed.learn, strict=True)
            if learns
        }
        # the layers that share a blob share its gradient too: it is taken once
        names = {name: key for key, name in reversed(exported.outputs.items()) if _is_kept(key, learn)}
        self._outputs = {key: name for name, key in names.items()}

    def run(self, add_diffs: bool) -> None:
        random: dict[str, np.ndarray] = {}
        for layer in self._standard:
            layer.draw()
            random |= layer.random_values
        feeds = {name: self._value(key, random) for key, name in self._inputs.items()}
        results = run(self._session, list(self._outputs.values()), feeds, "the training graph")
        for key, result in zip(self._outputs, results, strict=True):
            kind, name = split_key(key)
            if kind == DATA:
                blob = self._net.blobs[name]
                blob.reshape(*result.shape)
                blob.data[...] = result
            elif kind == PARAM_AFTER:
                self._learnable[name].data[...] = result
            elif add_diffs:
                diff = self._learnable[name].diff
                np.add(0 if name in self._diff_is_set else diff, result, out=diff)
        self._copy_to_splits()

    def _value(self, key: str, random: Arrays) -> np.ndarray:
        kind, name = split_key(key)
        if kind == IN:
            return self._net.blobs[name].data
        if kind == RANDOM:
            return random[name]
        return self._learnable[name].data

    def _copy_to_splits(self) -> None:
        """A loss that others read as well is counted at the first blob of its Split."""
        for placed in self._net.placed:
            if placed.spec.is_inserted and any(placed.loss_weights):
                placed.tops[0].data[...] = placed.bottoms[0].data


def _is_kept(key: str, learn: set[str]) -> bool:
    return split_key(key)[0] in (DATA, PARAM_AFTER) or key in learn
