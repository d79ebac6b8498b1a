"""Whether a layer's form is one that its type can have: how many bottoms and tops, and which fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from caffe_tools.errors import NetError, few_quoted, nearest
from caffe_tools.prototxt.fields import Field
from caffe_tools.prototxt.layer_spec import LAYER, LayerSpec
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.messages import PYTHON_PARAM
from caffe_tools.prototxt.unread import CAFFE_MESSAGES, LAYER_FIELDS, OTHER_MEANING
from caffe_tools.standard.registry import PYTHON_TYPES, TAUGHT, TYPES, LayerType, known_type


def check_counts(spec: LayerSpec, kind: LayerType) -> None:
    """NetError where the layer has too few or too many bottoms or tops."""
    for what, have, (least, most) in (("bottom", len(spec.bottoms), kind.bottoms), ("top", len(spec.tops), kind.tops)):
        if have < least or (most is not None and have > most):
            wanted = f"at least {least}" if most is None else str(least) if least == most else f"{least} to {most}"
            raise spec.error(f"it has {have} {what} blobs, but takes {wanted}")


def field_faults(layers: Sequence[LayerSpec]) -> list[NetError]:
    """What is wrong with the layers' fields: one that no Caffe knows, or that something depends on but nothing reads.

    What a layer's type does not read, here as in Caffe, is named in a note, which lists the layers where it is so.
    """
    faults: list[NetError] = []
    unread: dict[tuple[str, str], list[LayerSpec]] = {}
    for spec in layers:
        kind = known_type(spec)
        if kind is None and spec.type != "Python":
            continue  # its type is refused, with whatever it reads
        own = set(LAYER) | ({"python_param"} if spec.type == "Python" else set()) | set(kind.messages if kind else ())
        for name in spec.message.names():
            if name in own:
                continue
            try:
                unread.setdefault((name, _why_unread(spec, name, own)), []).append(spec)
            except NetError as error:
                faults.append(error)
    for (name, why), (first, *others) in unread.items() if not faults else ():
        also = (
            f" (so in {len(others)} other layers: {few_quoted([spec.name for spec in others], 90)})" if others else ""
        )
        first.note(f"{name} changes nothing: {why}{also}", name)
    return faults


def _why_unread(spec: LayerSpec, name: str, own: Iterable[str]) -> str:
    if name in OTHER_MEANING:
        raise spec.error(f"it has {name}: {OTHER_MEANING[name]}", name)
    if name in LAYER_FIELDS:
        return LAYER_FIELDS[name]
    declared = _declared(name)
    if name not in CAFFE_MESSAGES and not declared:
        known = {*CAFFE_MESSAGES, *LAYER_FIELDS, *(name for kind in _types() for name in kind.messages)}
        hint = nearest(name, own, cutoff=0.7) or nearest(name, known, cutoff=0.8)
        raise spec.error(f"it has no field {name!r}: {hint or 'no Caffe that is covered here knows it'}", name)
    for message in spec.message.fields(name):
        if isinstance(message, Message) and declared:
            for inner in message.names():
                if inner not in declared:
                    hint = nearest(inner, declared) or f"it has {', '.join(declared)}"
                    raise spec.error(f"{name} has no field {inner!r}: {hint}", name)
    return f"{spec.type} does not read it, here as in Caffe"


def _declared(name: str) -> dict[str, Field]:
    """The fields that some type declares for the message."""
    return {inner: field for kind in _types() for inner, field in kind.messages.get(name, {}).items()} | (
        PYTHON_PARAM if name == "python_param" else {}
    )


def _types() -> list[LayerType]:
    return [*TYPES.values(), *PYTHON_TYPES.values(), *TAUGHT.values()]
