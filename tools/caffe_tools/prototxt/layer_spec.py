"""One layer of one phase of a net, as the prototxt describes it.

Source: Caffe src/caffe/proto/caffe.proto (``LayerParameter``, ``ParamSpec``, ``NetStateRule``).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from caffe_tools.errors import NetError
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, OptionalEnum, Repeated, String, Submessage
from caffe_tools.prototxt.message import Message, Position

PHASES = ("TRAIN", "TEST")

NET_STATE_RULE = {
    "phase": OptionalEnum(*PHASES),
    "min_level": Int(),
    "max_level": Int(),
    "stage": Repeated(String()),
    "not_stage": Repeated(String()),
}
PARAM_SPEC = {
    "name": String(""),
    "share_mode": Enum("STRICT", "PERMISSIVE"),
    "lr_mult": Float(1.0),
    "decay_mult": Float(1.0),
}
LAYER = {
    "name": String(""),
    "type": String(""),
    "bottom": Repeated(String()),
    "top": Repeated(String()),
    "phase": OptionalEnum(*PHASES),
    "loss_weight": Repeated(Float()),
    "param": Repeated(Submessage(PARAM_SPEC)),
    "propagate_down": Repeated(Bool()),
    "include": Repeated(Submessage(NET_STATE_RULE)),
    "exclude": Repeated(Submessage(NET_STATE_RULE)),
}
"""The fields of LayerParameter that every layer has; each type declares its own besides."""


@dataclass
class ParamSpec:
    """What a ``param`` block of a layer says of one of its learnable blobs."""

    name: str = ""
    share_mode: str = "STRICT"
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    given: frozenset[str] = frozenset()
    """The fields that the prototxt sets."""


@dataclass
class LayerSpec:
    """One layer of one phase. ``message`` keeps all that the prototxt says of it."""

    name: str
    type: str
    bottoms: list[str] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    phase: str = "TRAIN"
    loss_weights: list[float] = field(default_factory=list)
    params: list[ParamSpec] = field(default_factory=list)
    propagate_down: list[bool] = field(default_factory=list)
    message: Message = field(default_factory=Message)
    said: set[str] = field(default_factory=set, repr=False, compare=False)
    """The notes on this layer."""

    @property
    def position(self) -> Position | None:
        return self.message.position

    @property
    def is_inserted(self) -> bool:
        """Whether it is a Split that stands in no prototxt, but behind a blob that several layers read."""
        return self.type == "Split" and "type" not in self.message

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.type})"

    @property
    def place(self) -> str:
        """Where it stands, and which it is: how errors begin."""
        return f"{self.position}: {self}" if self.position else str(self)

    def error(self, text: str, field_name: str | None = None) -> NetError:
        """A NetError that says where the layer (or that field of it) stands, and which it is."""
        position = self.message.position_of(field_name) if field_name else None
        return NetError(f"{position}: {self}: {text}" if position else f"{self.place}: {text}")

    def note(self, text: str, field_name: str | None = None) -> None:
        """Warn of what does not stop the layer, with its place as in ``error``; the same text once alone."""
        if text not in self.said:
            self.said.add(text)
            warnings.warn(str(self.error(text, field_name)), stacklevel=2)

    def param(self, index: int) -> ParamSpec:
        return self.params[index] if index < len(self.params) else ParamSpec()

    def read(self, name: str, declared: Mapping[str, fields.Field]) -> fields.Values:
        """The message ``name`` of the layer, with defaults where it is silent."""
        found = self.message.fields(name)
        if len(found) > 1:
            raise self.error(f"{name} is given {len(found)} times, give it once")
        message = found[0] if found else None
        if isinstance(message, (str, int, float)):
            raise self.error(f"{name} is written as {name} {{ … }}")
        return fields.read(message, declared, f"{self}: {name}")
