"""A message of a prototxt: an ordered multimap of fields that knows where each of them stood.

There is no schema, so the fields of every Caffe fork are kept. What a value means (an enum, a bool, an int) is
decided by whoever knows the field; here a value is

    str         a quoted string
    Identifier  an unquoted word: an enum constant, true, false
    int, float  a number; inf and nan are floats
    Message     { ... } or < ... >
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from caffe_tools.errors import PrototxtError

# A plain name, or an extension or type URL in brackets.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\[[A-Za-z0-9_./-]+\]")


class Identifier(str):
    """An unquoted word. It equals the same str (``pool == "MAX"``), but is printed without quotes."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Position:
    """Where a field stands; printed as ``net.prototxt:12:3`` (line and column count from 1)."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


class Message:
    """Fields in their order, each name any number of times. It can change, so it has no hash."""

    __slots__ = ("position", "_fields")

    def __init__(self, position: Position | None = None) -> None:
        self.position = position
        self._fields: list[tuple[str, FieldValue, Position | None]] = []

    def fields(self, name: str) -> list[FieldValue]:
        """Every value of the field, in order; [] where it is absent."""
        return [value for field_name, value, _ in self._fields if field_name == name]

    def first(self, name: str, default: FieldValue | None = None) -> FieldValue | None:
        return next((value for field_name, value, _ in self._fields if field_name == name), default)

    def messages(self, name: str) -> list[Message]:
        """The values of a field that holds messages; PrototxtError where one is something else."""
        return self._all(name, lambda value: isinstance(value, Message), f"'{name} {{ ... }}'")

    def strings(self, name: str) -> list[str]:
        """The values of a field that holds quoted strings; PrototxtError where one is something else."""
        return self._all(name, lambda value: type(value) is str, f"a quoted string for '{name}'")

    def _all(self, name: str, fits: Callable[[FieldValue], bool], expected: str) -> list:
        values = self.fields(name)
        for index, value in enumerate(values):
            if not fits(value):
                place = self.position_of(name, index)
                found = f"{name} {{ ... }}" if isinstance(value, Message) else value
                raise PrototxtError(f"{place or 'message'}: expected {expected}, found {found}")
        return values

    def names(self) -> list[str]:
        """Each name once, in order of first appearance."""
        return list(dict.fromkeys(name for name, _, _ in self._fields))

    def position_of(self, name: str, index: int = 0) -> Position | None:
        """Where the field stands; the message's own position if there is no such field or code added it."""
        positions = (position for field_name, _, position in self._fields if field_name == name)
        return next(islice(positions, index, None), None) or self.position

    def add(self, name: str, value: _Added, position: Position | None = None) -> _Added:
        """Append a field and return its value, so that a new message can be filled; True and False become words.

        PrototxtError for a name or a value that no prototxt can hold.
        """
        if not _NAME.fullmatch(name):
            raise PrototxtError(f"{name!r} is not a field name: give letters, digits and _, not starting with a digit")
        if isinstance(value, Identifier) and not _NAME.fullmatch(value) or not isinstance(value, _KINDS):
            found = f"{type(value).__name__} {value!r}"
            raise PrototxtError(f"field {name} cannot hold the {found}: give a str, bool, int, float or Message")
        word = Identifier("true" if value else "false") if isinstance(value, bool) else value
        self._fields.append((name, word, position))
        return value

    def add_from(self, source: Message, name: str) -> None:
        """Append every value that the field has in another message, with its position."""
        self._fields += [entry for entry in source._fields if entry[0] == name]

    def set(self, name: str, values: Iterable[FieldValue]) -> None:
        """Replace every value of the field, in the place of its first one (at the end if it is new)."""
        place = next((i for i, entry in enumerate(self._fields) if entry[0] == name), len(self._fields))
        new = Message()
        for index, value in enumerate(values):
            new.add(name, value, value.position if isinstance(value, Message) else self.position_of(name, index))
        rest = [entry for entry in self._fields[place:] if entry[0] != name]
        self._fields[place:] = new._fields + rest

    def remove(self, name: str) -> None:
        """Remove every value of the field; nothing happens where it is absent."""
        self._fields = [entry for entry in self._fields if entry[0] != name]

    def copy(self) -> Message:
        """A deep copy, positions included."""
        twin = Message(self.position)
        for name, value, position in self._fields:
            twin._fields.append((name, value.copy() if isinstance(value, Message) else value, position))
        return twin

    def items(self) -> Iterator[tuple[str, FieldValue, Position | None]]:
        """(name, value, position) in order."""
        return iter(self._fields)

    def __iter__(self) -> Iterator[tuple[str, FieldValue]]:
        return ((name, value) for name, value, _ in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: str) -> bool:
        return any(field_name == name for field_name, _, _ in self._fields)

    def __eq__(self, other: object) -> bool:
        """Same names and values in the same order, wherever they stand. 1, 1.0, "1" differ; nan equals nan."""
        if not isinstance(other, Message):
            return NotImplemented
        if len(self) != len(other):
            return False
        return all(a == b and _same_value(x, y) for (a, x), (b, y) in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<Message {', '.join(self.names())}>"


FieldValue = str | int | float | Message
_KINDS = (str, int, float, Message)
_Added = TypeVar("_Added", bound=FieldValue)


def _same_value(a: FieldValue, b: FieldValue) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return repr(float(a)) == repr(float(b))  # nan equals nan, 0.0 is not -0.0
    return type(a) is type(b) and a == b
