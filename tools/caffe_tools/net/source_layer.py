"""A layer that makes blobs from nothing, inside the embedded net.

Source: Caffe src/caffe/layers/dummy_data_layer.cpp, input_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from caffe_tools import standard
from caffe_tools.net import fillers
from caffe_tools.net.blob import Blob
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.standard.data.input import Source
from caffe_tools.standard.form import check_counts
from caffe_tools.standard.limits import expect_size


class SourceLayer(EmbeddedLayer):
    """A layer that makes blobs from nothing: DummyData, filled by its fillers; Input, Data, …, filled from outside."""

    def __init__(
        self,
        spec: LayerSpec,
        kind: standard.LayerType,
        random: np.random.Generator,
        directory: str,
        shapes: Mapping[str, Sequence[int]],
    ) -> None:
        self.spec, self.type = spec, spec.type
        self._given_shapes = shapes
        check_counts(spec, kind)
        # such a layer asks its host for nothing
        self.sources: list[Source] = kind.function(standard.Layer(spec, kind, self, directory))  # type: ignore[arg-type]
        for source in self.sources:
            if source.filler is not None:
                fillers.check(source.filler, spec.place)
        self._random = random
        self._is_set_up = False

    @property
    def makes_data(self) -> bool:
        return True

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """The tops get their shapes when the net is made, and keep those that their users give them later."""
        if not self._is_set_up:
            for name, top, source in zip(self.spec.tops, tops, self.sources, strict=True):
                top.reshape(*self._shape(name, source))
            self._fill(tops, refill=False)
            self._is_set_up = True

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._fill(tops, refill=True)

    def _shape(self, top: str, source: Source) -> Sequence[int]:
        shape = self._given_shapes.get(top, source.shape)
        if shape is None:
            raise self.spec.error(
                f"the prototxt does not tell the shape of its top {top!r}: feed the blob (--inputs, an array in/{top}),"
                " or put an Input layer in its place"
            )
        expect_size(self.spec, f"its top {top!r}", shape)
        return shape

    def _fill(self, tops: Sequence[Blob], refill: bool) -> None:
        """Constant fillers fill once, all others in every forward pass."""
        for top, source in zip(tops, self.sources, strict=True):
            if source.filler is not None and source.is_filled_once != refill:
                top.data[...] = fillers.fill(top.shape, source.filler, self._random, self.spec.place)
