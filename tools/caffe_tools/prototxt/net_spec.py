"""One phase of a net as Caffe would build it: which layers take part, what they read and write.

Source: Caffe src/caffe/net.cpp (``FilterNet``, ``StateMeetsRule``, ``Init``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from caffe_tools.errors import NetError, nearest, some_of
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Int, OptionalEnum, Repeated, String, Submessage
from caffe_tools.prototxt.layer_spec import LAYER, PHASES, LayerSpec, ParamSpec
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.splits import insert_splits
from caffe_tools.prototxt.unread import NET_FIELDS
from caffe_tools.prototxt.upgrade import upgrade

NET_STATE = {"phase": OptionalEnum(*PHASES), "level": Int(0), "stage": Repeated(String())}
NET = {"name": String(""), "force_backward": Bool(False), "state": Submessage(NET_STATE)}


@dataclass
class NetSpec:
    """One phase of a net, with Caffe's Split layers in place."""

    name: str
    phase: str
    force_backward: bool
    layers: list[LayerSpec]


def read_net(
    message: Message, phase: str | None = None, level: int = 0, stages: Sequence[str] = (), to: Sequence[str] = ()
) -> NetSpec:
    """The layers of ``message`` (of any era) that take part in ``phase``, at ``level`` with ``stages``.

    Where ``phase`` is None the phase and level of the prototxt's own ``state`` count, and TEST where it has none; its
    stages always do. Layers that the blobs ``to`` do not need are left out. Raises NetError for rules that contradict
    each other and for blobs that do not connect.
    """
    message = upgrade(message)
    net = fields.read(message, NET, "the net", ignore_unknown=True)
    _check_fields(message)
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
    layers = _needed(layers, to) if to else layers
    return NetSpec(net.name, phase, net.force_backward, insert_splits(layers))


def _check_fields(message: Message) -> None:
    """NetError where the net has a field that no Caffe knows; a note on what changes nothing."""
    for name in message.names():
        place = message.position_of(name)
        where = f"{place}: the net" if place else "the net"
        if name in NET_FIELDS:
            warnings.warn(f"{where}: {name} changes nothing: {NET_FIELDS[name]}", stacklevel=3)
        elif name not in NET and name != "layer" and "layer" in message:  # without layers it may be a solver
            known = [*NET, *NET_FIELDS, "input", "input_shape", "input_dim", "layer"]
            hint = nearest(name, known) or "no Caffe that is covered here knows it"
            raise NetError(f"{where} has no field {name!r}: {hint}")


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


def _needed(layers: Sequence[LayerSpec], to: Sequence[str]) -> list[LayerSpec]:
    """The layers that make the blobs ``to``, their in-place layers among them, and those that these need."""
    made = list(dict.fromkeys(top for layer in layers for top in layer.tops))
    for name in to:
        if name not in made:
            raise NetError(f"the net has no blob {name!r}: {nearest(name, made) or f'it has {some_of(made)}'}")
    needed, kept = set(to), []
    for layer in reversed(layers):
        if needed.intersection(layer.tops):
            needed.update(layer.bottoms)
            kept.append(layer)
    return kept[::-1]
