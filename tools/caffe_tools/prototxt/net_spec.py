"""One phase of a net as Caffe would build it: which layers take part, what they read and write, how they share.

Source: Caffe src/caffe/net.cpp (``FilterNet``, ``StateMeetsRule``, ``Init``), src/caffe/util/insert_splits.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from caffe_tools.errors import NetError
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, OptionalEnum, Repeated, String, Submessage
from caffe_tools.prototxt.message import Message, Position
from caffe_tools.prototxt.upgrade import upgrade

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
NET_STATE = {"phase": OptionalEnum(*PHASES), "level": Int(0), "stage": Repeated(String())}
NET = {"name": String(""), "force_backward": Bool(False), "state": Submessage(NET_STATE)}


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

    def param(self, index: int) -> ParamSpec:
        return self.params[index] if index < len(self.params) else ParamSpec()


@dataclass
class NetSpec:
    """One phase of a net, with Caffe's Split layers in place."""

    name: str
    phase: str
    force_backward: bool
    layers: list[LayerSpec]


def read_net(message: Message, phase: str | None = None, level: int = 0, stages: Sequence[str] = ()) -> NetSpec:
    """The layers of ``message`` (of any era) that take part in ``phase``, at ``level`` with ``stages``.

    Where ``phase`` is None the phase and level of the prototxt's own ``state`` count, and TEST where it has none; its
    stages always do. Raises NetError for rules that contradict each other and for blobs that do not connect.
    """
    message = upgrade(message)
    net = fields.read(message, NET, "the net", ignore_unknown=True)
    if phase is None:
        phase = net.state.phase or "TEST"
        level = level or net.state.level
    stages = [*net.state.stage, *stages]
    if phase not in PHASES:
        raise NetError(f"phase {phase!r} is none of {', '.join(PHASES)}")
    layers = [
        spec for layer in message.messages("layer") if (spec := _read_layer(layer, phase, level, stages)) is not None
    ]
    if not layers:
        raise NetError(f"the net has no layer in phase {phase}" + (f" with stages {list(stages)}" if stages else ""))
    _check_names(layers)
    _check_connections(layers)
    return NetSpec(net.name, phase, net.force_backward, insert_splits(layers))


def _read_layer(message: Message, phase: str, level: int, stages: Sequence[str]) -> LayerSpec | None:
    where = f"layer {message.first('name', '')!r} ({message.first('type', '?')})"
    values = fields.read(message, LAYER, where, ignore_unknown=True)
    spec = LayerSpec(
        name=values.name,
        type=values.type,
        bottoms=values.bottom,
        tops=values.top,
        phase=values.phase or phase,
        loss_weights=values.loss_weight,
        params=[ParamSpec(p.name, p.share_mode, p.lr_mult, p.decay_mult, p.given) for p in values.param],
        propagate_down=values.propagate_down,
        message=message,
    )
    if not spec.type:
        raise spec.error('it has no type: give type: "…"')
    if values.include and values.exclude:
        raise spec.error("it has both include and exclude rules: Caffe takes one kind")
    rules = values.include or values.exclude
    met = any(_state_meets(rule, phase, level, stages) for rule in rules)
    taken = met if values.include else not met
    return spec if taken else None


def _state_meets(rule: fields.Values, phase: str, level: int, stages: Sequence[str]) -> bool:
    if rule.phase is not None and rule.phase != phase:
        return False
    if rule.min_level is not None and level < rule.min_level:
        return False
    if rule.max_level is not None and level > rule.max_level:
        return False
    return all(stage in stages for stage in rule.stage) and not any(stage in stages for stage in rule.not_stage)


def _check_names(layers: Sequence[LayerSpec]) -> None:
    seen: set[str] = set()
    for layer in layers:
        if layer.name in seen:
            # Caffe builds such a net, but loads the weights of both into the first
            raise layer.error("another layer of this phase has the same name: rename one, weights go by the name")
        seen.add(layer.name)


def _check_connections(layers: Sequence[LayerSpec]) -> None:
    available: dict[str, str] = {}
    for layer in layers:
        for bottom in layer.bottoms:
            if bottom not in available:
                later = next((other.name for other in layers if bottom in other.tops), None)
                hint = f"it is a top of the later layer {later!r}" if later else "no layer of this phase makes it"
                raise layer.error(f"unknown bottom blob {bottom!r}: {hint}")
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index] == top
            if top in available and not in_place:
                raise layer.error(f"top blob {top!r} is already made by layer {available[top]!r}")
            available[top] = layer.name
        if layer.propagate_down and len(layer.propagate_down) != len(layer.bottoms):
            raise layer.error(
                f"propagate_down is given {len(layer.propagate_down)} times for {len(layer.bottoms)} bottoms:"
                " give it once for each, or not at all"
            )


def insert_splits(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """The layers with a Split behind every top that several layers read, as Caffe inserts and names them.

    Raises NetError where one of the readers works in place: its top would overwrite what the Split shares out.
    """
    made_by: dict[str, tuple[int, int]] = {}
    readers: Counter[tuple[int, int]] = Counter()
    source_of: dict[tuple[int, int], tuple[int, int]] = {}
    for i, layer in enumerate(layers):
        for j, bottom in enumerate(layer.bottoms):
            source_of[i, j] = made_by[bottom]
            readers[made_by[bottom]] += 1
        for j, top in enumerate(layer.tops):
            made_by[top] = (i, j)
    for i, layer in enumerate(layers):
        for j, weight in enumerate(layer.loss_weights[: len(layer.tops)]):
            # a top with a loss_weight that others read as well needs a diff of its own for the loss
            if weight and readers[i, j]:
                readers[i, j] += 1
    result, used = [], Counter()
    for i, layer in enumerate(layers):
        bottoms = []
        for j, bottom in enumerate(layer.bottoms):
            source = source_of[i, j]
            if readers[source] > 1:
                if j < len(layer.tops) and layer.tops[j] == bottom:
                    raise layer.error(
                        f"it works in place on blob {bottom!r}, which something else reads as well (a layer before it,"
                        " or a loss_weight): give its top another name"
                    )
                bottoms.append(_split_blob(layers[source[0]].name, bottom, source[1], used[source]))
                used[source] += 1
            else:
                bottoms.append(bottom)
        weights = list(layer.loss_weights)
        splits = []
        for j, top in enumerate(layer.tops):
            count = readers[i, j]
            if count < 2:
                continue
            weight = weights[j] if j < len(weights) else 0.0
            if weight:
                weights[j] = 0.0
                used[i, j] += 1  # the loss takes the first of the split blobs
            splits.append(
                LayerSpec(
                    name=_split_layer(layer.name, top, j),
                    type="Split",
                    bottoms=[top],
                    tops=[_split_blob(layer.name, top, j, k) for k in range(count)],
                    phase=layer.phase,
                    loss_weights=[weight] + [0.0] * (count - 1) if weight else [],
                    message=Message(layer.position),
                )
            )
        result.append(
            LayerSpec(
                layer.name,
                layer.type,
                bottoms,
                layer.tops,
                layer.phase,
                weights,
                layer.params,
                layer.propagate_down,
                layer.message,
            )
        )
        result.extend(splits)
    return result


def _split_layer(layer: str, blob: str, index: int) -> str:
    return f"{blob}_{layer}_{index}_split"


def _split_blob(layer: str, blob: str, index: int, split: int) -> str:
    return f"{_split_layer(layer, blob, index)}_{split}"
