"""One phase of a net as Caffe would build it: which layers take part, what they read and write.

Source: Caffe src/caffe/net.cpp (``FilterNet``, ``StateMeetsRule``, ``Init``).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from caffe_tools.errors import NetError, few_quoted, nearest, raise_all
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Int, OptionalEnum, Repeated, String, Submessage
from caffe_tools.prototxt.layer_spec import LAYER, PHASES, LayerSpec, ParamSpec
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.rules import NetState, how_to_take, takes_part
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

    def with_splits(self) -> NetSpec:
        return replace(self, layers=insert_splits(self.layers))


def read_net(
    message: Message, phase: str | None = None, level: int = 0, stages: Sequence[str] = (), to: Sequence[str] = ()
) -> NetSpec:
    """The layers of ``message`` (of any era) that take part in ``phase``, at ``level`` with ``stages``.

    Where ``phase`` is None the phase and level of the prototxt's own ``state`` count, and TEST where it has none; its
    stages always do. Layers that the blobs ``to`` do not need are left out. Raises NetError for rules that contradict
    each other and for blobs that do not connect.
    """
    net, faults = survey(message, phase, level, stages, to)
    raise_all(faults)
    return net.with_splits()


def survey(
    message: Message, phase: str | None = None, level: int = 0, stages: Sequence[str] = (), to: Sequence[str] = ()
) -> tuple[NetSpec, list[NetError]]:
    """As ``read_net``, but without Split layers, and with all that is wrong with its layers and their connections."""
    message = upgrade(message)
    net = fields.read(message, NET, "the net", ignore_unknown=True)
    if phase is None:
        phase = net.state.phase or "TEST"
        level = level or net.state.level
    if phase not in PHASES:
        raise NetError(f"phase {phase!r} is none of {', '.join(PHASES)}")
    state = NetState(phase, level, [*net.state.stage, *stages])
    layers: list[LayerSpec] = []
    left_out: list[tuple[LayerSpec, fields.Values]] = []
    faults = _field_faults(message)
    for layer in message.messages("layer"):
        try:
            spec, rules = _read_layer(layer, phase)
        except NetError as error:
            faults.append(error)
            continue
        if takes_part(rules, state):
            layers.append(spec)
        else:
            left_out.append((spec, rules))
    if not faults:  # else what is missing may be what could not be read
        if not layers:
            raise NetError(_no_layers(state, left_out))
        faults = [*_name_faults(layers), *_connection_faults(layers, left_out, state)]
        layers = _needed(layers, to) if to and not faults else layers
    return NetSpec(net.name, phase, net.force_backward, layers), faults


def _no_layers(state: NetState, left_out: Sequence[tuple[LayerSpec, fields.Values]]) -> str:
    text = f"the net has no layer in phase {state.phase}"
    text += f" with stages {list(state.stages)}" if state.stages else ""
    return text + (f": {left_out[0][0]} is there {how_to_take(left_out[0][1], state)}" if left_out else "")


def _field_faults(message: Message) -> list[NetError]:
    """What is said of the net's fields that no Caffe knows; a note on those that change nothing."""
    faults = []
    for name in message.names():
        place = message.position_of(name)
        where = f"{place}: the net" if place else "the net"
        if name in NET_FIELDS:
            warnings.warn(f"{where}: {name} changes nothing: {NET_FIELDS[name]}", stacklevel=3)
        elif name not in NET and name != "layer" and "layer" in message:  # without layers it may be a solver
            known = [*NET, *NET_FIELDS, "input", "input_shape", "input_dim", "layer"]
            hint = nearest(name, known) or "no Caffe that is covered here knows it"
            faults.append(NetError(f"{where} has no field {name!r}: {hint}"))
    return faults


def _read_layer(message: Message, phase: str) -> tuple[LayerSpec, fields.Values]:
    """The layer, and its fields, among which are the rules that say where it takes part."""
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
    return spec, values


def _name_faults(layers: Sequence[LayerSpec]) -> Iterator[NetError]:
    seen: set[str] = set()
    for layer in layers:
        if layer.name in seen:
            # Caffe builds such a net, but loads the weights of both into the first
            yield layer.error("another layer of this phase has the same name: rename one, weights go by the name")
        seen.add(layer.name)


def _connection_faults(
    layers: Sequence[LayerSpec], left_out: Sequence[tuple[LayerSpec, fields.Values]], state: NetState
) -> Iterator[NetError]:
    available: dict[str, str] = {}
    missing: set[str] = set()
    for layer in layers:
        for bottom in layer.bottoms:
            if bottom not in available and bottom not in missing:
                missing.add(bottom)
                yield layer.error(_unknown_bottom(bottom, available, layers, left_out, state))
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index] == top
            if top in available and not in_place:
                yield layer.error(f"top blob {top!r} is already made by layer {available[top]!r}")
                break
            available[top] = layer.name
        if layer.propagate_down and len(layer.propagate_down) != len(layer.bottoms):
            yield layer.error(
                f"propagate_down is given {len(layer.propagate_down)} times for {len(layer.bottoms)} bottoms:"
                " give it once for each, or not at all"
            )


def _unknown_bottom(
    bottom: str,
    available: Iterable[str],
    layers: Sequence[LayerSpec],
    left_out: Sequence[tuple[LayerSpec, fields.Values]],
    state: NetState,
) -> str:
    """What is said of a bottom that no layer before it makes: who makes it elsewhere, else which blob may be meant."""
    later = next((layer.name for layer in layers if bottom in layer.tops), None)
    if later is not None:
        return f"unknown bottom blob {bottom!r}: it is a top of the later layer {later!r}"
    for spec, rules in left_out:
        if bottom in spec.tops:
            return f"blob {bottom!r} is made by layer {spec.name!r} {how_to_take(rules, state)}"
    hint = nearest(bottom, available)
    return f"unknown bottom blob {bottom!r}: no layer of this phase makes it" + (f", {hint}" if hint else "")


def _needed(layers: Sequence[LayerSpec], to: Sequence[str]) -> list[LayerSpec]:
    """The layers that make the blobs ``to``, their in-place layers among them, and those that these need."""
    made = list(dict.fromkeys(top for layer in layers for top in layer.tops))
    for name in to:
        if name not in made:
            raise NetError(f"the net has no blob {name!r}: {nearest(name, made) or f'it has {few_quoted(made)}'}")
    needed, kept = set(to), []
    for layer in reversed(layers):
        if needed.intersection(layer.tops):
            needed.update(layer.bottoms)
            kept.append(layer)
    return kept[::-1]
