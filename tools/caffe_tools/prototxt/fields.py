"""Typed reading of a prototxt's messages: a layer type declares its fields and their defaults, this gives the values.

    POOLING = {"pool": Enum("MAX", "AVE"), "kernel_size": UInt(), "pad": UInt(0)}
    read(message, POOLING, "layer 'pool1' (Pooling): pooling_param").kernel_size

Conversions are those of protobuf's text format: 1 is a legal bool and a legal float, 0.5 is no int, an enum constant
may be given by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from caffe_tools.errors import NetError, nearest
from caffe_tools.prototxt.message import Identifier, Message


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
    return replace(Enum(*names), default=None)


def Submessage(fields: Mapping[str, Field]) -> Field:
    """A message; an absent one reads as one with every default."""
    return Field("message", None, fields=fields)


def Unread() -> Field:
    """A message that says nothing about the numbers (where to save results, …): anything may stand in it."""
    return Field("unread message")


def Repeated(of: Field) -> Field:
    return replace(of, default=(), repeated=True)


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
    values: dict[str, Any] = {}
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
    converted = _KINDS[declared.kind](value, declared, f"{where} {name}")
    if converted is not None:
        return converted
    found = "a message" if isinstance(value, Message) else repr(value)
    raise NetError(
        f"{_at(message, name, index)}{where}: {name} is {found}, but takes "
        f"{'one of ' if declared.choices else 'a value of type '}{' | '.join(declared.choices) or declared.kind}"
    )


def _bool(value: Any, declared: Field, where: str) -> bool | None:
    bits = {"true": 1, "True": 1, "t": 1, "false": 0, "False": 0, "f": 0}
    word = constant(value, bits)
    return None if word is None else bool(bits[word])


def _integer(low: int, high: int) -> _Convert:
    return lambda value, *_: value if isinstance(value, int) and low <= value <= high else None


_Convert = Callable[[Any, Field, str], Any]
_KINDS: dict[str, _Convert] = {
    "bool": _bool,
    "int": _integer(-(2**31), 2**31 - 1),
    "unsigned int": _integer(0, 2**32 - 1),
    "int64": _integer(-(2**63), 2**63 - 1),
    "float": lambda value, *_: float(value) if isinstance(value, (int, float)) else None,
    "string": lambda value, *_: value if type(value) is str else None,
    "enum": lambda value, declared, _: constant(value, declared.choices),
    "message": lambda value, declared, at: read(value, declared.fields, at) if isinstance(value, Message) else None,
    "unread message": lambda value, *_: value,
}
"""Kind of a field → what makes the attribute's value of the prototxt's; None refuses it."""


def constant(value: Any, numbers: Mapping[str, int]) -> str | None:
    """The enum's constant that a value of a prototxt names or numbers; None where it does neither."""
    for name, number in numbers.items():
        if value == (name if isinstance(value, Identifier) else number) and isinstance(value, (Identifier, int)):
            return name
    return None


def _at(message: Message, name: str, index: int = 0) -> str:
    position = message.position_of(name, index)
    return f"{position}: " if position else ""


def _suggest(name: str, fields: Mapping[str, Field]) -> str:
    return nearest(name, fields) or f"it has {', '.join(fields) or 'none'}"
