"""Blobs with one memory in the graph of a net: where a layer changes one of them in place, it changes all.

In Caffe the top of a Reshape, of a Flatten, of a Split and so on holds its numbers in the memory of its bottom. A graph
has values, which nothing changes; so behind a layer that works in place, every other blob of that memory gets a new
value, which later readers read and which has the blob's name in the end. Its diff stays its own, as in Caffe: what the
later readers send back goes to the blob as it was, and not through the layer in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnx_ir as ir

from caffe_tools.errors import ExportError
from caffe_tools.export.options import ExportOptions
from caffe_tools.graph.builder import Builder
from caffe_tools.net.keys import part_of
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.standard import Sharing


class Graph(Protocol):
    """The graph of a net, as far as it is built (``forward_graph.py``)."""

    op: Builder
    options: ExportOptions
    current: dict[str, ir.Value]
    results: dict[str, list[ir.Value]]
    parameters: dict[str, ir.Value]
    shared: dict[str, str]

    def update_of(self, name: str, value: ir.Value) -> None: ...

    def blob(self, top: str) -> str: ...


class SharedMemory:
    """Which blobs of the net that ``graph`` builds share memory, and the learnable blobs among them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._groups: dict[str, set[str]] = {}
        """Blob → the blobs of its memory."""
        self._learnable: dict[str, str] = {}
        """The top of a Parameter layer → its learnable blob."""
        self._readers: dict[str, list[PlacedLayer]] = {}
        """Blob → the layers whose backward reads it."""

    def follow(self, placed: PlacedLayer, sharing: Sharing | None) -> None:
        """``placed`` has just been built, and its tops are there."""
        bottoms, tops = placed.spec.bottoms, placed.spec.tops
        for top in set(tops).intersection(bottoms):
            self._change(top, placed)
        if sharing is Sharing.PARAMETER:
            self._learnable[tops[0]] = part_of(placed.name, 0)
            self._join(tops)
        elif sharing is not None:
            self._join([bottoms[0], *tops])
            if sharing is Sharing.IN_PASSES and bottoms[0] in self._learnable:
                self._take_diff(bottoms[0])
        elif placed.runs_backward:
            for bottom in set(bottoms).difference(tops):
                self._readers.setdefault(bottom, []).append(placed)

    def _take_diff(self, name: str) -> None:
        """The top of a Parameter layer has the diff of a Flatten's top from its backward on: none reaches the learnable
        blob, so that in Caffe it does not learn."""
        graph, learnable = self._graph, self._learnable[name]
        stored = graph.parameters[graph.shared.get(learnable, learnable)]
        graph.op.define_gradient([graph.current[name]], [stored], lambda diff: [None])

    def _join(self, names: Sequence[str]) -> None:
        group = set(names).union(*(self._groups.get(name, ()) for name in names))
        self._groups.update(dict.fromkeys(group, group))

    def _change(self, name: str, placed: PlacedLayer) -> None:
        """Blob ``name`` has been changed in place by ``placed``: so are those that share its memory."""
        graph, op = self._graph, self._graph.op
        value, others = graph.current[name], [other for other in graph.current if other in self._groups.get(name, ())]
        changed: dict[ir.Value, ir.Value] = {}
        for other in others:
            if other in self._learnable:
                graph.update_of(self._learnable[other], value)
            if other == name:
                continue
            self._refuse_readers(other, placed)
            before = graph.current[other]
            if before not in changed:
                with op.layer(placed.name):
                    changed[before] = op.Identity(op.reshape(value, op.shape(before)))
                op.define_gradient([changed[before]], [before], _handed_on)
            graph.current[other] = changed[before]
            if other in graph.results and changed[before] not in graph.results[other]:
                graph.results[other].append(changed[before])

    def _refuse_readers(self, blob: str, placed: PlacedLayer) -> None:
        """In Caffe, their backward reads the changed numbers; a graph that gives the gradients cannot follow that."""
        readers = self._readers.get(blob, [])
        if readers and self._graph.options.training:
            raise ExportError(
                f"{readers[0].spec.place} has read blob {self._graph.blob(blob)!r} when {placed.spec.place} changes it"
                " in place (they share memory in Caffe): its backward would read the changed numbers, which no graph"
                " does;"
                f" give the top of {placed.name!r} another name"
            )


def _handed_on(diff: ir.Value) -> list[ir.Value]:
    return [diff]
