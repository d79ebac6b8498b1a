"""The table of standard Caffe layer types, filled by the files beside this one.

A layer type is one function, named after the type. It gets the graph builder ``op``, the ``layer`` it is built for and
the bottoms' values, and returns the tops' values:

    @layer_type("ReLU", relu_param={"negative_slope": Float(0.0)})
    def relu(op, layer, x):
        return op.Relu(x)

The keyword arguments of the decorator declare the messages that the type reads; ``layer.relu_param.negative_slope`` is
then a value of that type, with Caffe's default where the prototxt is silent.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from caffe_tools.errors import GraphError, NetError
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Field, Values
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.prototxt.net_spec import LAYER, LayerSpec


@dataclass(frozen=True)
class LayerType:
    """A standard layer type. ``bottoms`` and ``tops`` are the least and the greatest number of blobs (None: any)."""

    name: str
    function: Callable[..., Any]
    messages: Mapping[str, Mapping[str, Field]]
    bottoms: tuple[int, int | None]
    tops: tuple[int, int | None]
    is_loss: bool = False
    is_source: bool = False
    labels: Mapping[int, str] = field(default_factory=dict)
    """Bottoms that never get a gradient (Caffe's AllowForceBackward is false, or its Backward refuses them), with what
    they hold: CLASS_INDEX, BINARY or REAL."""


CLASS_INDEX, BINARY, REAL = "class index", "0 or 1", "real"
"""What a label bottom holds."""

TYPES: dict[str, LayerType] = {}


def layer_type(
    name: str,
    *,
    bottoms: int | tuple[int, int | None] = 1,
    tops: int | tuple[int, int | None] = 1,
    is_loss: bool = False,
    is_source: bool = False,
    labels: Mapping[int, str] | None = None,
    **messages: Mapping[str, Field],
) -> Callable[[Callable], Callable]:
    """Register the function below as the layer type ``name``."""

    def register(function: Callable) -> Callable:
        TYPES[name] = LayerType(
            name, function, messages, as_range(bottoms), as_range(tops), is_loss, is_source, labels or {}
        )
        return function

    return register


def as_range(number: int | tuple[int, int | None]) -> tuple[int, int | None]:
    """The least and the greatest number, of which one number is both."""
    return number if isinstance(number, tuple) else (number, number)


class Host(Protocol):
    """Who builds a layer: the embedded net (parameters are inputs) or an export (parameters are stored tensors)."""

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value: ...

    def update(self, index: int, value: ir.Value) -> None: ...

    def random_uniform(self, like: ir.Value) -> ir.Value: ...

    def state(self, index: int, shape: Sequence[int]) -> ir.Value | None: ...

    def keep(self, index: int, value: ir.Value) -> None: ...


DEFAULT_FILLER = fields.read(None, FILLER, "filler")


def filled_with(value: float) -> Values:
    """A constant filler."""
    return Values({**vars(DEFAULT_FILLER), "value": value}, frozenset())


@dataclass
class Layer:
    """What a layer type's function knows of the layer that it builds."""

    spec: LayerSpec
    type: LayerType
    host: Host
    directory: str = ""
    learnable_count: int = 0
    statistics: set[int] = field(default_factory=set)
    label_ranges: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    _messages: dict[str, Values] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def phase(self) -> str:
        return self.spec.phase

    @property
    def top_count(self) -> int:
        return len(self.spec.tops)

    def __getattr__(self, message: str) -> Values:
        """The values of a declared parameter message, such as ``layer.pooling_param``."""
        declared = self.type.messages.get(message)
        if declared is None:
            raise AttributeError(message)
        if message not in self._messages:
            self._messages[message] = read_message(self.spec, message, declared)
        return self._messages[message]

    def parameter(self, shape: Sequence[int], filler: Values | None = None) -> ir.Value:
        """The layer's next learnable blob. ``filler`` (default: zeros) fills it where no weights are given."""
        index, self.learnable_count = self.learnable_count, self.learnable_count + 1
        return self.host.parameter(index, tuple(int(dim) for dim in shape), filler or DEFAULT_FILLER)

    def statistic(self, shape: Sequence[int]) -> ir.Value:
        """The layer's next stored blob that no gradient changes (BatchNorm's running statistics), at first zeros."""
        self.statistics.add(self.learnable_count)
        return self.parameter(shape)

    def update(self, index: int, value: ir.Value) -> None:
        """The forward pass leaves ``value`` in stored blob ``index``."""
        self.host.update(index, value)

    def random_uniform(self, like: ir.Value) -> ir.Value:
        """Random numbers in [0, 1) of the shape of ``like``, drawn anew in every forward pass."""
        return self.host.random_uniform(like)

    def state(self, index: int, shape: Sequence[int]) -> ir.Value | None:
        """What the last forward pass kept under ``index`` (zeros in the first); None where every pass is a first."""
        return self.host.state(index, shape)

    def keep(self, index: int, value: ir.Value) -> None:
        """The forward pass leaves ``value`` to the next one, as its state ``index``."""
        self.host.keep(index, value)

    def expect_labels(self, index: int, classes: int | str, ignored: int | None = None) -> None:
        """Bottom ``index`` holds labels from 0 to ``classes`` - 1, or ``ignored``; who runs the layer checks that."""
        if isinstance(classes, int):
            self.label_ranges[index] = (classes, ignored)

    def axis(self, axis: int, value: ir.Value, what: str = "axis") -> int:
        """``axis`` counted from the front; NetError where the blob has no such axis."""
        return canonical_axis(self.spec, axis, len(value.shape), what)

    def path(self, name: str) -> str:
        """A file that the prototxt names: relative to the working directory as in Caffe, else to the prototxt."""
        beside = os.path.join(self.directory, name)
        return beside if not os.path.exists(name) and os.path.exists(beside) else name

    def error(self, text: str, field_name: str | None = None) -> NetError:
        return self.spec.error(text, field_name)


def read_message(spec: LayerSpec, name: str, declared: Mapping[str, Field]) -> Values:
    """The message ``name`` of a layer, with defaults where it is silent."""
    found = spec.message.fields(name)
    if len(found) > 1:
        raise spec.error(f"{name} is given {len(found)} times, give it once")
    if found and isinstance(found[0], (str, int, float)):
        raise spec.error(f"{name} is written as {name} {{ … }}")
    return fields.read(found[0] if found else None, declared, f"{spec}: {name}")


def canonical_axis(spec: LayerSpec, axis: int, rank: int, what: str = "axis") -> int:
    if not -rank <= axis < rank:
        raise spec.error(f"{what} {axis} is out of range for a blob of {rank} axes: give {-rank} to {rank - 1}")
    return axis % rank


def check_form(spec: LayerSpec, kind: LayerType) -> None:
    """NetError where the layer has too few or too many bottoms or tops, or a field that looks like a slip of the pen.

    Other fields that no Caffe knows are those of a fork, and let pass.
    """
    known = {name for type_ in TYPES.values() for name in type_.messages} | set(kind.messages) | set(LAYER)
    for name in spec.message.names():
        meant = difflib.get_close_matches(name, [*kind.messages, *LAYER], n=1, cutoff=0.85)
        if name not in known and meant:
            raise spec.error(f"it has no field {name!r}: did you mean {meant[0]!r}?", name)
    for what, have, (least, most) in (("bottom", len(spec.bottoms), kind.bottoms), ("top", len(spec.tops), kind.tops)):
        if have < least or (most is not None and have > most):
            wanted = f"at least {least}" if most is None else str(least) if least == most else f"{least} to {most}"
            raise spec.error(f"it has {have} {what} blobs, but takes {wanted}")


def build(op: Builder, layer: Layer, bottoms: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
    """The tops of ``layer`` over ``bottoms``, appended to ``op``'s graph."""
    check_form(layer.spec, layer.type)
    layer.learnable_count = 0
    with op.layer(layer.name):
        try:
            tops = layer.type.function(op, layer, *bottoms)
        except GraphError as error:
            raise layer.error(str(error)) from None
    return tops if isinstance(tops, tuple) else (tops,)


def expect_shape(layer: Layer, index: int, have: Sequence, want: Sequence, why: str) -> None:
    """NetError where bottom ``index`` has another shape than ``why`` demands; symbolic dims fit anything."""
    fits = len(have) == len(want) and all(
        h == w or isinstance(h, str) or isinstance(w, str) for h, w in zip(have, want, strict=True)
    )
    if not fits:
        raise layer.error(
            f"bottom {layer.spec.bottoms[index]!r} has the shape {dims_text(have)}, but must have"
            f" {dims_text(want)}: {why}"
        )


def dims_text(dims: Sequence) -> str:
    return "×".join(map(str, dims)) if len(dims) else "() (a scalar)"


FLT_MIN = float(np.finfo(np.float32).tiny)
FLT_MAX = float(np.finfo(np.float32).max)
