"""The Split layers that Caffe puts behind every blob that several layers read.

Source: Caffe src/caffe/util/insert_splits.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.message import Message


@dataclass
class _Made:
    """A top of a layer, as one result of a blob that in-place layers may change again."""

    layer: LayerSpec
    index: int
    readers: int = 0
    """Layers that read it, and the loss, which needs a diff of its own where a layer reads it too."""
    copies: int = 0
    """How many of the readers have been given theirs."""

    @property
    def loss_weight(self) -> float:
        weights = self.layer.loss_weights
        return weights[self.index] if self.index < len(weights) else 0.0

    @property
    def split_name(self) -> str:
        return f"{self.layer.tops[self.index]}_{self.layer.name}_{self.index}_split"

    def next_copy(self) -> str:
        """The name under which the next reader reads it."""
        if self.readers < 2:
            return self.layer.tops[self.index]
        self.copies += 1
        return f"{self.split_name}_{self.copies - 1}"

    def as_split(self) -> LayerSpec:
        """The Split behind it, which takes over its loss_weight: the loss has the first of the copies."""
        weight, names = self.loss_weight, [f"{self.split_name}_{index}" for index in range(self.readers)]
        weights = [weight] + [0.0] * (self.readers - 1) if weight else []
        phase, message = self.layer.phase, Message(self.layer.position)
        return LayerSpec(
            self.split_name, "Split", [self.layer.tops[self.index]], names, phase, weights, message=message
        )


def insert_splits(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """The layers with a Split behind every top that several layers read, as Caffe inserts and names them.

    Raises NetError where one of the readers works in place: its top would overwrite what the Split shares out.
    """
    current: dict[str, _Made] = {}
    made: list[list[_Made]] = []
    read: list[list[_Made]] = []
    for layer in layers:
        read.append([current[bottom] for bottom in layer.bottoms])
        for source in read[-1]:
            source.readers += 1
        made.append([_Made(layer, index) for index in range(len(layer.tops))])
        current |= dict(zip(layer.tops, made[-1], strict=True))
    for top in (top for tops in made for top in tops):
        if top.loss_weight and top.readers:
            top.readers += 1
            top.copies = 1
    result = []
    for layer, sources, tops in zip(layers, read, made, strict=True):
        _refuse_in_place(layer, sources)
        split = [top for top in tops if top.readers > 1]
        moved = {top.index for top in split}
        weights = [0.0 if index in moved else weight for index, weight in enumerate(layer.loss_weights)]
        result.append(replace(layer, bottoms=[source.next_copy() for source in sources], loss_weights=weights))
        result += [top.as_split() for top in split]
    return result


def _refuse_in_place(layer: LayerSpec, sources: Sequence[_Made]) -> None:
    for bottom, top, source in zip(layer.bottoms, layer.tops, sources, strict=False):
        if bottom == top and source.readers > 1:
            raise layer.error(
                f"it works in place on blob {bottom!r}, which something else reads as well (a layer before it, or a"
                " loss_weight): give its top another name"
            )
