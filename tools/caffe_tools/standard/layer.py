"""What a layer type's function knows of the layer that it builds, and whom it asks for what differs between hosts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

from caffe_layers import params
from caffe_tools.errors import CaffeToolsError, GraphError, NetError, few_quoted, place_in_user_code, raised
from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Field, Values
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.standard.examples import Example
from caffe_tools.standard.form import check_counts
from caffe_tools.standard.limits import expect_size, naming_extremes
from caffe_tools.standard.registry import TAUGHT, LayerType


class Host(Protocol):
    """Who builds a layer: the embedded net (parameters are inputs) or an export (parameters are stored tensors)."""

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value: ...

    def update(self, index: int, value: ir.Value) -> None: ...

    def random_uniform(self, like: ir.Value) -> ir.Value: ...

    def state(self, index: int, shape: Sequence[int]) -> ir.Value | None: ...

    def keep(self, index: int, value: ir.Value) -> None: ...


MEAN, VARIANCE, FACTOR, SCALE, SHIFT = "mean", "variance", "factor", "scale", "shift"
"""What a stored blob is that no gradient changes; FACTOR divides the others."""

DEFAULT_FILLER = fields.read(None, FILLER, "filler")


class Sharing(Enum):
    """How the tops of a layer hold their numbers in the memory of its bottom, as in Caffe: what changes the one in
    place changes the other."""

    ALWAYS = "data and diff, from reshape on"
    IN_PASSES = "forward shares the data, backward the diff"
    DATA = "forward shares the data; the diffs of the tops add up"
    PARAMETER = "forward shares data and diff, with learnable blob 0"


@dataclass
class Layer:
    """What a layer type's function knows of the layer that it builds."""

    spec: LayerSpec
    type: LayerType
    host: Host
    directory: str = ""
    learnable_count: int = 0
    draws_random: bool = False
    statistics: dict[int, str] = field(default_factory=dict)
    """The stored blobs that no gradient changes, and what they are."""
    sharing: Sharing | None = None
    """What the layer's function says of the memory of its tops, where they have none of their own."""
    label_ranges: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    examples: dict[int, Example] = field(default_factory=dict)
    """Bottoms for which not any numbers will do, and how such are drawn that do."""
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
            self._messages[message] = self.spec.read(message, declared)
        return self._messages[message]

    def parameter(self, shape: Sequence[int], filler: Values | None = None) -> ir.Value:
        """The layer's next learnable blob. ``filler`` (default: zeros) fills it where no weights are given."""
        index, self.learnable_count = self.learnable_count, self.learnable_count + 1
        shape = tuple(int(dim) for dim in shape)
        expect_size(self.spec, f"its learnable blob {index}", shape)
        return self.host.parameter(index, shape, filler or DEFAULT_FILLER)

    def statistic(self, shape: Sequence[int], what: str) -> ir.Value:
        """The layer's next stored blob that no gradient changes (BatchNorm's running statistics), at first zeros;
        ``what`` is MEAN, VARIANCE and so on."""
        self.statistics[self.learnable_count] = what
        return self.parameter(shape)

    def update(self, index: int, value: ir.Value) -> None:
        """The forward pass leaves ``value`` in stored blob ``index``."""
        self.host.update(index, value)

    def random_uniform(self, like: ir.Value) -> ir.Value:
        """Random numbers in [0, 1) of the shape of ``like``, drawn anew in every forward pass."""
        self.draws_random = True
        return self.host.random_uniform(like)

    def state(self, index: int, shape: Sequence[int]) -> ir.Value | None:
        """What the last forward pass kept under ``index`` (zeros in the first); None where every pass is a first."""
        return self.host.state(index, shape)

    def keep(self, index: int, value: ir.Value) -> None:
        """The forward pass leaves ``value`` to the next one, as its state ``index``."""
        self.host.keep(index, value)

    def weight_and_bias(self, p: Values, shape: Sequence[Dim], outputs: int) -> tuple[ir.Value, ir.Value | None]:
        """The next learnable blobs of a layer with WEIGHT_AND_BIAS in its message ``p``; the bias has ``outputs``
        elements, and is None without ``bias_term``."""
        weight = self.parameter(shape, p.weight_filler)
        return weight, self.parameter((outputs,), p.bias_filler) if p.bias_term else None

    def expect_axes(self, index: int, value: ir.Value, least: int, most: float | None = None) -> tuple[Dim, ...]:
        """The shape of ``value``, bottom ``index``; NetError where it lacks ``least`` axes (or up to ``most``)."""
        shape, most = Builder.shape(value), least if most is None else most
        if not least <= len(shape) <= most:
            wanted = f"{least} axes" if least == most else f"{least} to {most} axes"
            raise self.misfit(index, shape, f": it takes {wanted if most < math.inf else f'{least} axes or more'}")
        return shape

    def expect_shape(self, index: int, value: ir.Value, want: Sequence[Dim], why: str) -> None:
        """NetError where ``value``, bottom ``index``, has another shape than ``why`` demands; symbolic dims fit all."""
        have = Builder.shape(value)
        if len(have) != len(want) or any(
            h != w and not isinstance(h, str) and not isinstance(w, str) for h, w in zip(have, want, strict=True)
        ):
            raise self.misfit(index, have, f", but must have {dims_text(want)}: {why}")

    def misfit(self, index: int, shape: ir.Value | Sequence[Dim], text: str) -> NetError:
        """The error that bottom ``index`` has that shape, which ``text`` goes on about."""
        dims = dims_text(Builder.shape(shape) if isinstance(shape, ir.Value) else shape)
        return self.error(f"bottom {self.spec.bottoms[index]!r} has the shape {dims}{text}")

    def fixed(self, dims: Sequence[Dim], what: str) -> tuple[int, ...]:
        """``dims``; NetError where one is symbolic, with the reason why ``what`` must not be."""
        numbers = tuple(dim for dim in dims if isinstance(dim, int))
        if len(numbers) != len(dims):
            raise self.error(f"{what} must be fixed, not {dims_text(dims)}")
        return numbers

    def pair(self, message: str, name: str, least: float | None = None) -> list:
        """What a parameter of both axes is down and across: ``name`` gives it for both, or ``name_h`` and ``name_w``
        (``kernel_h`` for ``kernel_size``) for each.

        Raises NetError where they are mixed or missing, and where a value is below ``least``.
        """
        p, (down, across) = getattr(self, message), _of_each_axis(name)
        choice, has_one, has_two = f"give {name}, or {down} and {across}", name in p.given, {down, across} & p.given
        if has_one and has_two:
            raise self.error(f"{choice}, not both", message)
        values = [getattr(p, part) for part in ((down, across) if has_two else (name, name))]
        if len(has_two) == 1 or None in values:
            raise self.error(choice if getattr(p, name) is not None else f"{name} is missing: {choice}", message)
        if least is not None and min(values) < least:
            raise self.error(f"{name} must be {least} or more", message)
        return values

    def optional_pair(self, message: str, name: str, least: float | None = None) -> list | None:
        """As ``pair``, but None where nothing is given."""
        given = {name, *_of_each_axis(name)} & getattr(self, message).given
        return self.pair(message, name, least) if given else None

    def expect_labels(self, index: int, classes: int | str, ignored: int | None = None) -> None:
        """Bottom ``index`` holds labels from 0 to ``classes`` - 1, or ``ignored``; who runs the layer checks that."""
        if isinstance(classes, int):
            self.label_ranges[index] = (classes, ignored)

    def axis(self, axis: int, value: ir.Value, what: str = "axis") -> int:
        """``axis`` counted from the front; NetError where the blob has no such axis."""
        rank = len(value.shape)
        if not -rank <= axis < rank:
            raise self.error(f"{what} {axis} is out of range for a blob of {rank} axes: give {-rank} to {rank - 1}")
        return axis % rank

    def path(self, name: str) -> str:
        """A file that the prototxt names: relative to the working directory as in Caffe, else to the prototxt."""
        beside = os.path.join(self.directory, name)
        return beside if not os.path.exists(name) and os.path.exists(beside) else name

    def error(self, text: str, field_name: str | None = None) -> NetError:
        return self.spec.error(text, field_name)

    def note(self, text: str, field_name: str | None = None) -> None:
        """Say, once for each layer, what the user should know of it."""
        self.spec.note(text, field_name)


def build(op: Builder, layer: Layer, bottoms: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
    """The tops of ``layer`` over ``bottoms``, appended to ``op``'s graph."""
    check_counts(layer.spec, layer.type)
    layer.learnable_count = 0
    with op.layer(layer.name), naming_extremes(layer.spec), _naming_user_code(layer):
        try:
            tops = layer.type.function(op, layer, *bottoms)
        except GraphError as error:
            raise layer.error(str(error)) from None
    tops = tops if isinstance(tops, tuple) else (tops,)
    for name, top in zip(layer.spec.tops, tops, strict=False):
        expect_size(layer.spec, f"its top {name!r}", Builder.shape(top))
    return tops


@contextmanager
def _naming_user_code(layer: Layer) -> Iterator[None]:
    """Say where the function of a type that a user taught raises an error."""
    try:
        yield
    except Exception as error:
        place = "" if isinstance(error, CaffeToolsError) else place_in_user_code(error, layer.type.function.__module__)
        if layer.type not in TAUGHT.values() or not place:
            raise
        raise layer.error(f"the function of its type raises {raised(error)} ({place})") from error


def filler_of(p: Values, name: str, value: float) -> Values:
    """The filler ``name`` of a message; where it is not given, a constant one of that value."""
    return getattr(p, name) if name in p.given else Values({**vars(DEFAULT_FILLER), "value": value}, frozenset())


def _of_each_axis(name: str) -> tuple[str, str]:
    stem = name.removesuffix("_size")
    return f"{stem}_h", f"{stem}_w"


def both_axes(name: str, declared: Field) -> dict[str, Field]:
    """The fields of a parameter that is given once, or for each axis (``Layer.pair`` reads it)."""
    return dict.fromkeys((name, *_of_each_axis(name)), declared)


def dims_text(dims: Sequence[Dim]) -> str:
    return "×".join(map(str, dims)) if len(dims) else "() (a scalar)"


FLT_MIN = float(np.finfo(np.float32).tiny)
FLT_MAX = float(np.finfo(np.float32).max)


def param_values(layer: Layer, kinds: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The values that ``param_str`` gives; NetError where one of ``kinds`` (key → test) is not of its kind.

    Keys that ``kinds`` does not name are named in a note: the layers in the wild ignore what they do not know.
    """
    try:
        values = params.parse(layer.python_param.param_str)
    except params.ValueRefused as error:
        raise layer.error(str(error), "python_param") from None
    for key, is_right in kinds.items():
        if key in values and not is_right(values[key]):
            raise layer.error(f"param_str: {key} is {values[key]!r}, which is not what it takes", "python_param")
    if unread := [str(key) for key in values if key not in kinds]:
        layer.note(
            f"param_str: {few_quoted(unread)}: the layer does not read that, and nothing changes", "python_param"
        )
    return values
