"""Typed reading of a prototxt's messages: a layer type declares its fields and their defaults, this gives the values.

    POOLING = {"pool": Enum("MAX", "AVE"), "kernel_size": UInt(), "pad": UInt(0)}
    read(message, POOLING, "layer 'pool1' (Pooling): pooling_param").kernel_size

Conversions are those of protobuf's text format: 1 is a legal bool and a legal float, 0.5 is no int, an enum constant
may be given by its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from caffe_tools.errors import NetError, choice, raise_all
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

    Raises NetError, with all that is wrong, for a field that is not declared (unless ``ignore_unknown``), given more
    than once though it is no list, or of another type; ``where`` says what the message belongs to.
    """
    message = Message() if message is None else message
    unknown = [] if ignore_unknown else [name for name in message.names() if name not in fields]
    errors = [
        NetError(f"{_at(message, name)}{where} has no field {name!r}: {choice(name, fields)}") for name in unknown
    ]
    values: dict[str, Any] = {}
    for name, declared in fields.items():
        try:
            values[name] = _value(message, name, declared, where)
        except NetError as error:
            errors.append(error)
    raise_all(errors)
    return Values(values, frozenset(message.names()))


def _value(message: Message, name: str, declared: Field, where: str) -> Any:
    found = message.fields(name)
    if declared.repeated:
        return [_convert(message, name, i, v, declared, where) for i, v in enumerate(found)]
    if not found:
        return read(None, declared.fields, where) if declared.kind == "message" else declared.default
    # protobuf lets the last of several values win, and a repeated scalar is an error in text
    if len(found) > 1 and declared.kind != "message":
        raise NetError(f"{_at(message, name, 1)}{where}: {name} is given {len(found)} times, give it once")
    return _convert(message, name, len(found) - 1, found[-1], declared, where)


def _convert(message: Message, name: str, index: int, value: Any, declared: Field, where: str) -> Any:
    converted = _KINDS[declared.kind](value, declared, f"{where} {name}")
    if converted is not None:
        return converted
    found = "a message" if isinstance(value, Message) else repr(value)
    found = found if len(found) < MOST_SHOWN else f"{found[:MOST_SHOWN]}…"
    takes = f"one of {' | '.join(declared.choices)}" if declared.choices else f"a value of type {declared.kind}"
    if isinstance(value, int) and not (declared.kind == "unsigned int" and value < 0) and declared.kind in RANGES:
        takes += f", {RANGES[declared.kind][0]} to {RANGES[declared.kind][1]}"
    raise NetError(f"{_at(message, name, index)}{where}: {name} is {found}, but takes {takes}")


def _bool(value: Any, declared: Field, where: str) -> bool | None:
    bits = {"true": 1, "True": 1, "t": 1, "false": 0, "False": 0, "f": 0}
    word = constant(value, bits)
    return None if word is None else bool(bits[word])


def _integer(value: Any, declared: Field, _: str) -> int | None:
    least, most = RANGES[declared.kind]
    return value if isinstance(value, int) and least <= value <= most else None


def _float(value: float) -> float:
    """A number beyond float32 is infinite in Caffe."""
    return math.copysign(math.inf, value) if abs(value) > MOST_FLOAT else float(value)


MOST_SHOWN = 60
"""How many characters of a value an error shows."""
MOST_FLOAT = (2 - 2**-23) * 2.0**127
RANGES = {"int": (-(2**31), 2**31 - 1), "unsigned int": (0, 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""The least and the greatest value of an integer field; of unsigned ones too, since Caffe goes on with them as ints."""

_Convert = Callable[[Any, Field, str], Any]
_KINDS: dict[str, _Convert] = {
    "bool": _bool,
    "int": _integer,
    "unsigned int": _integer,
    "int64": _integer,
    "float": lambda value, *_: _float(value) if isinstance(value, (int, float)) else None,
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
