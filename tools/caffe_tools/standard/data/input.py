"""Layers that make blobs from nothing: Input, DummyData. Their tops are the inputs of an exported model.

Source: Caffe src/caffe/layers/input_layer.cpp, dummy_data_layer.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

from caffe_tools.prototxt.fields import Repeated, Submessage, UInt, Values
from caffe_tools.prototxt.messages import FILLER, SHAPE
from caffe_tools.prototxt.text import to_text
from caffe_tools.standard.layer import DEFAULT_FILLER, Layer
from caffe_tools.standard.registry import layer_type


@dataclass(frozen=True)
class Source:
    """A blob that a layer makes: its shape (None where the net alone does not tell it), the filler that fills it (None:
    whoever runs the net does), and the layer's transform_param as text: what Caffe does to the images that go in."""

    shape: tuple[int, ...] | None
    filler: Values | None = None
    transform: str | None = None

    @property
    def is_filled_once(self) -> bool:
        """Whether the filler fills it when the net is made alone, not anew in every forward pass."""
        return self.filler is not None and self.filler.type == "constant"


def transform_of(layer: Layer) -> str | None:
    """The layer's transform_param as text, None where it has none."""
    found = layer.spec.message.messages("transform_param")
    return to_text(found[0]) if found else None


@layer_type("Input", bottoms=0, tops=(1, None), is_source=True, input_param={"shape": Repeated(Submessage(SHAPE))})
def input_(layer: Layer) -> list[Source]:
    """The blobs that the net is fed: one shape for each top, or one for all.

    Caffe does nothing with a transform_param here; whoever feeds the net must.
    """
    shapes = _for_each_top(layer, "shape", [tuple(shape.dim) for shape in layer.input_param.shape])
    return [Source(_checked(layer, shape), transform=transform_of(layer)) for shape in shapes]


@layer_type(
    "DummyData",
    bottoms=0,
    tops=(1, None),
    is_source=True,
    dummy_data_param={
        "data_filler": Repeated(Submessage(FILLER)),
        "shape": Repeated(Submessage(SHAPE)),
        "num": Repeated(UInt()),
        "channels": Repeated(UInt()),
        "height": Repeated(UInt()),
        "width": Repeated(UInt()),
    },
)
def dummy_data(layer: Layer) -> list[Source]:
    """Filled blobs: constant ones once, random ones anew in every forward pass."""
    p, tops = layer.dummy_data_param, layer.top_count
    if len(p.data_filler) not in (0, 1, tops):
        raise layer.error(f"data_filler is given {len(p.data_filler)} times: give it 0, 1 or {tops} times")
    fillers = list(p.data_filler) or [DEFAULT_FILLER]
    fillers = fillers if len(fillers) == tops else fillers * tops
    dims = {name: getattr(p, name) for name in ("num", "channels", "height", "width")}
    if any(dims.values()):
        if p.shape:
            raise layer.error("give shape, or the older num, channels, height and width, not both")
        columns = [_for_each_top(layer, name, values) for name, values in dims.items()]
        shapes = list(zip(*columns, strict=True))
    else:
        shapes = _for_each_top(layer, "shape", [tuple(shape.dim) for shape in p.shape])
    return [Source(_checked(layer, shape), filler) for shape, filler in zip(shapes, fillers, strict=True)]


def _for_each_top(layer: Layer, name: str, values: list) -> list:
    if len(values) not in (1, layer.top_count):
        raise layer.error(f"{name} is given {len(values)} times for {layer.top_count} tops: give it once, or for each")
    return values if len(values) == layer.top_count else values * layer.top_count


def _checked(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(dim < 0 for dim in shape):
        raise layer.error(f"the shape {shape} has a negative dim")
    return shape
