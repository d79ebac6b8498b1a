"""What a layer in the embedded net is, and its place in the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import part_of
from caffe_tools.prototxt.layer_spec import LayerSpec


class EmbeddedLayer(Protocol):
    """A layer that runs without Caffe. pycaffe shows ``type`` and ``blobs``, its learnable blobs."""

    spec: LayerSpec
    type: str
    is_loss: bool = False
    """Whether its first top has a loss_weight of 1 where the prototxt gives none."""

    @property
    def blobs(self) -> list[Blob]:
        return []

    def learns(self, index: int) -> bool:
        """Whether a gradient may change learnable blob ``index``."""
        return True

    @property
    def makes_data(self) -> bool:
        """Whether what it makes from nothing is fed to a graph of the net."""
        return False

    def allow_force_backward(self, index: int) -> bool:
        """Whether ``force_backward`` asks for a gradient toward bottom ``index``."""
        return True

    def holds(self, index: int) -> str | None:
        """What bottom ``index`` holds (a kind of labels, say); None where any number will do."""
        return None

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Give the tops the shapes that follow from those of the bottoms; the first time, set up."""

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Write the data of the tops."""

    def repeat(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Forward with the random numbers and states of the last pass."""
        self.forward(bottoms, tops)

    def backward(
        self, tops: Sequence[Blob], propagate_down: Sequence[bool], bottoms: Sequence[Blob], learn: Sequence[bool]
    ) -> None:
        """Write the diffs of the bottoms chosen by ``propagate_down``, add to those of the blobs that ``learn``."""
        return None


@dataclass
class PlacedLayer:
    """A layer at its place in a net: between which blobs it stands, and what backward asks of it.

    loss_weights: one for each top. runs_backward, propagate_down (one for each bottom) and learn (one for each
    learnable blob) are what ``backward_need`` decides.
    """

    layer: EmbeddedLayer
    bottoms: list[Blob]
    tops: list[Blob]
    loss_weights: list[float] = field(default_factory=list)
    runs_backward: bool = False
    propagate_down: list[bool] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)

    @property
    def spec(self) -> LayerSpec:
        return self.layer.spec

    @property
    def name(self) -> str:
        return self.layer.spec.name

    @property
    def learnable(self) -> dict[str, Blob]:
        """The layer's learnable blobs by their names, ``<layer>/<i>``."""
        return {part_of(self.name, index): blob for index, blob in enumerate(self.layer.blobs)}

    @property
    def statistics(self) -> dict[str, Blob]:
        """Those of the learnable blobs that no gradient changes, but a forward pass may."""
        parts = enumerate(self.learnable.items())
        return {name: blob for index, (name, blob) in parts if not self.layer.learns(index)}

    @property
    def makes_data(self) -> bool:
        """Whether what it makes from nothing is fed to a graph of the net."""
        return self.layer.makes_data

    def reshape(self) -> None:
        before = [top.diff for top in self.tops]
        self.layer.reshape(self.bottoms, self.tops)
        if any(top.diff is not diff for top, diff in zip(self.tops, before, strict=True)):
            self.set_loss_diffs()

    def set_loss_diffs(self) -> None:
        """The diff of a top that has a loss_weight is that: there backward starts."""
        for top, weight in zip(self.tops, self.loss_weights, strict=True):
            if weight:
                top.diff[...] = weight

    def forward(self) -> None:
        """Reshape and run forward, as Caffe does."""
        self.reshape()
        self.layer.forward(self.bottoms, self.tops)

    def backward(self) -> None:
        """Run backward, where the net needs it."""
        if self.runs_backward:
            self.layer.backward(self.tops, self.propagate_down, self.bottoms, self.learn)
