"""The graph of one standard layer, built for bottoms of given shapes, and the sessions that run it.

Inputs are called ``bottom0``, ``parameter0``, ``random0``, ``state0`` and ``top_diff0``; outputs ``top0``, ``update0``,
``kept0``, ``bottom_diff0`` and ``parameter_diff0``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir
import onnxruntime

from caffe_tools import standard
from caffe_tools.gradient import gradients
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim
from caffe_tools.graph.session import make_session
from caffe_tools.prototxt.fields import Values
from caffe_tools.standard.layer import Host

Shape = tuple[int, ...]
Describe = Callable[[Host], standard.Layer]
ExpectBlob = Callable[[int, Shape, Values], None]


class LayerGraph:
    """One build of a layer, and the layer's host in it: what it asked for on the way.

    ``describe(host)`` gives what the layer's function knows of it; ``expect_blob(index, shape, filler)`` is called for
    each learnable blob that the layer has.
    """

    def __init__(
        self, describe: Describe, shapes: Sequence[Shape], expect_blob: ExpectBlob, dtype: str = "float32"
    ) -> None:
        self.layer = describe(self)
        self._op = Builder(name=self.layer.name, float_type=dtype)
        self._expect_blob = expect_blob
        self._parameters: list[ir.Value] = []
        self._random: list[ir.Value] = []
        self._left: dict[str, ir.Value] = {}
        self.state_shapes: dict[int, Shape] = {}
        self._bottoms = [self._op.input(f"bottom{i}", shape) for i, shape in enumerate(shapes)]
        self._tops = standard.build(self._op, self.layer, self._bottoms)

    # What a layer asks of its host ----------------------------------------------------------------------------------

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value:
        self._expect_blob(index, tuple(shape), filler)
        self._parameters.append(self._op.input(f"parameter{index}", shape))
        return self._parameters[-1]

    def update(self, index: int, value: ir.Value) -> None:
        self._left[f"update{index}"] = value

    def random_uniform(self, like: ir.Value) -> ir.Value:
        self._random.append(self._op.input(f"random{len(self._random)}", self._op.shape(like)))
        return self._random[-1]

    def state(self, index: int, shape: Sequence[int]) -> ir.Value:
        self.state_shapes[index] = tuple(shape)
        return self._op.input(f"state{index}", shape)

    def keep(self, index: int, value: ir.Value) -> None:
        self._left[f"kept{index}"] = value

    # What was built -------------------------------------------------------------------------------------------------

    @property
    def top_shapes(self) -> list[Shape]:
        """How many rows a DetectionOutput or a Filter finds is known when it has run: until then 1, as in Caffe."""
        return [_shape(self._op.shape(top)) for top in self._tops]

    @property
    def random_shapes(self) -> list[Shape]:
        return [_shape(self._op.shape(value)) for value in self._random]

    def forward_session(self) -> onnxruntime.InferenceSession:
        """Gives the tops, what the forward pass leaves in stored blobs, and what it leaves to the next one."""
        for name, value in ({f"top{i}": top for i, top in enumerate(self._tops)} | self._left).items():
            self._op.output(value, name)
        return make_session(self._op.graph)

    def backward_session(
        self, propagate_down: Sequence[bool], learn: Sequence[bool]
    ) -> onnxruntime.InferenceSession | None:
        """Gives the gradients by the bottoms and the learnable blobs so chosen; None where no gradient flows.

        It runs the forward nodes again, so that it needs nothing but what forward was fed and the tops' diffs.
        """
        op = self._op
        seeds: dict[ir.Value, ir.Value] = {}
        for index, top in enumerate(self._tops):
            diff = op.input(f"top_diff{index}", op.shape(top))
            # a layer may hand one value out several times (Split): its diffs add up
            seeds[top] = op.Add(seeds[top], diff) if top in seeds else diff
        by = {f"bottom_diff{i}": value for i, value in enumerate(self._bottoms) if propagate_down[i]}
        by |= {f"parameter_diff{i}": value for i, value in enumerate(self._parameters) if learn[i]}
        for name, gradient in zip(by, gradients(op, seeds, list(by.values())), strict=True):
            if gradient is not None:
                op.output(gradient, name)
        op.remove_unused()
        return make_session(op.graph) if op.graph.outputs else None


def _shape(dims: Sequence[Dim]) -> Shape:
    return tuple(1 if isinstance(dim, str) else dim for dim in dims)
