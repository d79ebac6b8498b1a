"""Typed reading of a prototxt's messages: a layer type declares its fields and their defaults, this gives the values.

    POOLING = {"pool": Enum("MAX", "AVE"), "kernel_size": UInt(), "pad": UInt(0)}
    read(message, POOLING, "layer 'pool1' (Pooling): pooling_param").kernel_size

Conversions are those of protobuf's text format: 1 is a legal bool and a legal float, 0.5 is no int, an enum constant
may be given by its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caffe_tools.errors import NetError, nearest
from caffe_tools.prototxt.message import Identifier, Message

_TRUE, _FALSE = ("true", "True", "t"), ("false", "False", "f")
_LARGEST = {"int": 2**31 - 1, "unsigned int": 2**32 - 1, "int64": 2**63 - 1}


@dataclass(frozen=True)
class Field:
    """One declared field: ``kind`` names its type, ``choices`` are an enum's constants by number."""

    kind: str
    default: Any = None
    repeated: bool = False
    choices: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)

    def describe(self) -> str:
        """The type in words, for listings and errors."""
        text = " | ".join(self.choices) if self.choices else self.kind
        return f"list of {text}" if self.repeated else text


def Bool(default: bool | None = False) -> Field:
    return Field("bool", default)


def Int(default: int | None = None) -> Field:
    return Field("int", default)


def UInt(default: int | None = None) -> Field:
    return Field("unsigned int", default)


def Float(default: float | None = None) -> Field:
    return Field("float", default)


def String(default: str | None = None) -> Field:
    return Field("string", default)


def Enum(*names: str, default: str | None = None, numbers: Mapping[str, int] | None = None) -> Field:
    """Constants numbered from 0 unless ``numbers`` says otherwise; the default is the first."""
    choices = dict(numbers) if numbers else {name: number for number, name in enumerate(names)}
    return Field("enum", default if default is not None else next(iter(choices)), choices=choices)


def OptionalEnum(*names: str) -> Field:
    """An enum whose value is None where it is not given."""
    return Field("enum", None, choices={name: number for number, name in enumerate(names)})


def Submessage(fields: Mapping[str, Field]) -> Field:
    """A message; an absent one reads as one with every default."""
    return Field("message", None, fields=fields)


def Unread() -> Field:
    """A message that says nothing about the numbers (where to save results, …): anything may stand in it."""
    return Field("unread message")


def Repeated(of: Field) -> Field:
    return Field(of.kind, (), repeated=True, choices=of.choices, fields=of.fields)


class Values:
    """The values of a message's declared fields, as attributes; ``given`` names those that the prototxt sets."""

    def __init__(self, values: Mapping[str, Any], given: frozenset[str]) -> None:
        self.__dict__.update(values)
        self.given = given

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        return f"Values({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items() if k != 'given')})"


def read(message: Message | None, fields: Mapping[str, Field], where: str, ignore_unknown: bool = False) -> Values:
    """The declared fields of ``message`` (None: an absent message, all defaults).

    Raises NetError for a field that is not declared (unless ``ignore_unknown``), given more than once though it is no
    list, or of another type; ``where`` says what the message belongs to.
    """
    message = Message() if message is None else message
    if not ignore_unknown:
        for name in message.names():
            if name not in fields:
                raise NetError(f"{_at(message, name)}{where} has no field {name!r}: {_suggest(name, fields)}")
    values = {}
    for name, declared in fields.items():
        found = message.fields(name)
        if declared.repeated:
            values[name] = [_convert(message, name, i, v, declared, where) for i, v in enumerate(found)]
        elif not found:
            values[name] = read(None, declared.fields, where) if declared.kind == "message" else declared.default
        else:
            # protobuf lets the last of several values win, and a repeated scalar is an error in text
            if len(found) > 1 and declared.kind != "message":
                raise NetError(f"{_at(message, name, 1)}{where}: {name} is given {len(found)} times, give it once")
            values[name] = _convert(message, name, len(found) - 1, found[-1], declared, where)
    return Values(values, frozenset(message.names()))


def _convert(message: Message, name: str, index: int, value: Any, declared: Field, where: str) -> Any:
    kind = declared.kind
    if kind == "message" and isinstance(value, Message):
        return read(value, declared.fields, f"{where} {name}")
    if kind == "unread message":
        return value
    if kind == "string" and isinstance(value, str) and not isinstance(value, Identifier):
        return value
    if kind == "bool":
        if isinstance(value, Identifier) and value in _TRUE + _FALSE:
            return value in _TRUE
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
    if kind == "float" and isinstance(value, (int, float)):
        return float(value)
    if kind in _LARGEST and isinstance(value, int):
        if -_LARGEST[kind] - 1 <= value <= _LARGEST[kind] and (value >= 0 or kind != "unsigned int"):
            return value
    if kind == "enum":
        if isinstance(value, Identifier) and value in declared.choices:
            return str(value)
        by_number = {number: choice for choice, number in declared.choices.items()}
        if isinstance(value, int) and value in by_number:
            return by_number[value]
    found = "a message" if isinstance(value, Message) else repr(value)
    raise NetError(
        f"{_at(message, name, index)}{where}: {name} is {found}, but takes "
        f"{'one of ' if declared.choices else 'a value of type '}{' | '.join(declared.choices) or kind}"
    )


def _at(message: Message, name: str, index: int = 0) -> str:
    position = message.position_of(name, index)
    return f"{position}: " if position else ""


def _suggest(name: str, fields: Mapping[str, Field]) -> str:
    return nearest(name, fields) or f"it has {', '.join(fields) or 'none'}"
