"""Prototxt (protobuf's text format) to messages and back, without a schema.

The grammar is the one that Caffe's C++ parser takes (protobuf's text_format.cc and io/tokenizer.cc).
"""

from __future__ import annotations

import math
import os
import re
from bisect import bisect_right
from typing import NoReturn

from caffe_tools.errors import PrototxtError
from caffe_tools.files import kind_by_magic
from caffe_tools.prototxt.message import FieldValue, Identifier, Message, Position

MAX_DEPTH = 100  # of messages in messages; Caffe's own nets need 4

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\v\f]+|\#[^\n]*)+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>(?:0[xX][0-9A-Fa-f]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?P<rest>[A-Za-z0-9_.]*))
      | (?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
      | (?P<mark>[{}<>\[\]:;,./-])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"""\\(?: u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})\\u(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})
          | (?:u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8}))
          | (?P<octal>[0-7]{1,3}) | [xX](?P<hexadecimal>[0-9A-Fa-f]{1,2}) | (?P<letter>.) )""",
    re.VERBOSE,
)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\?'\""}
_FLOAT_WORDS = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
_BRACKETED_NAME = re.compile(r"\[[A-Za-z0-9_./-]+\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f"\\\\\udc80-\udcff]')
_PRINTED = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_CLOSING = {"{": "}", "<": ">"}


def load(path: str | os.PathLike) -> Message:
    """The message in a file; PrototxtError where it is missing, unreadable, binary, empty or malformed."""
    try:
        with open(path, "rb") as file:
            data = file.read(4096)
            kind = kind_by_magic(data)
            if kind or re.search(rb"[\x00-\x08\x0e-\x1f]", data):
                kind = kind or "a binary file (a .caffemodel holds weights, not the net's text)"
                raise PrototxtError(f"{path}: {kind}, where a prototxt (UTF-8 text such as 'layer {{ }}') is expected")
            data += file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise PrototxtError(f"{path}: cannot read the prototxt: {reason}") from None
    # A byte that is not UTF-8 becomes a surrogate: Caffe skips it in a comment, the parser refuses it elsewhere.
    message = parse(data.decode("utf-8", "surrogateescape"), str(path))
    if not len(message):
        raise PrototxtError(f"{path}: the file is empty: fields such as 'layer {{ ... }}' are expected")
    return message


def parse(text: str, source: str = "<string>") -> Message:
    """The message that the text spells; PrototxtError with ``source:line:column`` where it is malformed."""
    return _Parser(text.removeprefix("\ufeff"), source).read()


class _Parser:
    """Recursive descent with one token ahead: its kind (a group of _TOKEN, or "end"), text and offsets."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self.kind = self.token = ""
        self.start = self.end = 0

    def read(self) -> Message:
        self.advance()
        message = Message(self.position(0))
        while self.kind != "end":
            self.read_field(message, 0)
        return message

    def read_field(self, message: Message, depth: int) -> None:
        position = self.position(self.start)
        name = self.read_name()
        has_colon = self.take(":")
        list_start = self.start
        if not self.take("["):
            message.add(name, self.read_value(name, has_colon, position, depth), position)
        elif not self.take("]"):
            message.add(name, self.read_value(name, has_colon, position, depth), position)
            while not self.take("]"):
                if not self.take(","):
                    self.fail(f"expected ',' or ']' in the list opened at {self.position(list_start)}")
                message.add(name, self.read_value(name, has_colon, position, depth), position)
        if not self.take(";"):
            self.take(",")

    def read_name(self) -> str:
        name = self.token
        if self.at("["):  # an extension, or the type of an Any: kept as it stands
            found = _BRACKETED_NAME.match(self.text, self.start)
            if found is None:
                self.fail("expected a field name")
            name, self.end = found.group(), found.end()
        elif self.kind != "word":
            self.fail("expected a field name")
        self.advance()
        return name

    def read_value(self, name: str, has_colon: bool, position: Position, depth: int) -> FieldValue:
        if self.at("{", "<"):
            return self.read_message(name, position, depth)
        if not has_colon:
            self.fail(f"expected ':' or '{{' after {_quote(name)}")
        if self.kind == "string":
            return self.read_strings()
        value: FieldValue
        sign = -1 if self.take("-") else 1
        token = self.token
        if self.kind == "number":
            value = sign * self.number(token)
        elif self.kind == "word" and token.lower() in _FLOAT_WORDS:
            value = sign * _FLOAT_WORDS[token.lower()]
        elif self.kind == "word" and sign > 0:
            value = Identifier(token)
        else:
            self.fail("expected a number after '-'" if sign < 0 else f"expected a value for {_quote(name)}")
        self.advance()
        return value

    def read_message(self, name: str, position: Position, depth: int) -> Message:
        if depth == MAX_DEPTH:
            self.fail(f"messages are nested deeper than {MAX_DEPTH} levels")
        opening, closing = self.token, _CLOSING[self.token]
        self.advance()
        message = Message(position)
        while not self.take(closing):
            if self.kind == "end" or self.at("}", ">"):
                self.fail(f"expected '{closing}' to close '{name} {opening}' opened at {position}")
            self.read_field(message, depth + 1)
        return message

    def number(self, token: str) -> int | float:
        if token[:2] in ("0x", "0X"):
            value = int(token, 16)
        elif not token.isdigit():
            return float(token.rstrip("fF"))
        elif len(token) > 20:  # more than 64 bits: only a float field can want it
            return float(token)
        elif token[0] == "0" and token.strip("01234567"):
            self.fail(f"expected an octal number after the leading 0 (for decimal {token.lstrip('0')} leave it out)")
        else:
            value = int(token, 8 if token[0] == "0" else 10)
        return value if value < 1 << 64 else float(value)

    def read_strings(self) -> str:
        """Strings side by side are one string, even in the middle of a character's bytes."""
        pieces = b""
        while self.kind == "string":
            unescaped = _ESCAPE.sub(self.unescape, self.token[1:-1])
            pieces += unescaped.encode("utf-8", "surrogateescape")
            self.advance()
        return pieces.decode("utf-8", "surrogateescape")

    def unescape(self, escape: re.Match[str]) -> str:
        """One escape; a byte above \x7f becomes the surrogate that encodes to it."""
        octal, hexadecimal, letter = escape["octal"], escape["hexadecimal"], escape["letter"]
        offset = self.start + 1 + escape.start()
        if letter:
            if letter not in _LETTERS:
                self.fail_at(offset, f"{escape.group()} is not an escape: a backslash is written \\\\")
            return _LETTERS[letter]
        if escape["high"]:
            return bytes.fromhex(escape["high"] + escape["low"]).decode("utf-16-be")
        code = int(octal, 8) if octal else int(hexadecimal or escape["short"] or escape["long"], 16)
        if (octal or hexadecimal) and code > 255 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            self.fail_at(offset, f"{escape.group()} is not a byte or a Unicode character")
        return chr(code) if code < 128 or not (octal or hexadecimal) else chr(0xDC00 + code)

    def advance(self) -> None:
        """Read the next token, past white space and comments."""
        while True:
            self.start = self.end
            found = _TOKEN.match(self.text, self.start)
            if found is None and self.start < len(self.text):
                self.fail_at_character(self.text[self.start])
            if found is None:
                self.kind, self.token = "end", ""
                return
            self.kind, self.token, self.end = found.lastgroup or "", found.group(), found.end()
            if self.kind != "space":
                break
        if self.kind == "number" and found["rest"]:
            self.fail_at(self.start, f"{_quote(self.token)} is not a number")
        if self.kind == "string" and _SURROGATE.search(self.token):
            self.fail_at(self.start, "the string is not UTF-8: save the file as UTF-8")

    def at(self, *marks: str) -> bool:
        return self.kind == "mark" and self.token in marks

    def take(self, mark: str) -> bool:
        """Consume the mark if it is the next token."""
        if not self.at(mark):
            return False
        self.advance()
        return True

    def position(self, offset: int) -> Position:
        line = bisect_right(self.line_starts, offset)
        return Position(self.source, line, offset - self.line_starts[line - 1] + 1)

    def fail(self, expected: str) -> NoReturn:
        found = "the end of the file" if self.kind == "end" else _quote(self.token)
        self.fail_at(self.start, f"{expected}, found {found}")

    def fail_at_character(self, character: str) -> NoReturn:
        if character in "\"'":
            self.fail_at(self.start, f"the string is not closed: expected {character} before the end of the line")
        if _SURROGATE.match(character):
            self.fail_at(self.start, f"byte 0x{ord(character) - 0xDC00:02x} is not UTF-8: save the file as UTF-8")
        self.fail_at(self.start, f"expected a field name or a value, found the stray character {character!r}")

    def fail_at(self, offset: int, message: str) -> NoReturn:
        raise PrototxtError(f"{self.position(offset)}: {message}")


def _quote(token: str) -> str:
    return f"'{token}'" if len(token) <= 40 else f"'{token[:37]}...'"


def to_text(message: Message) -> str:
    """The text that ``parse`` reads back as an equal message, two spaces per level, one field per line."""
    lines: list[str] = []
    _append_lines(message, "", 0, lines)
    return "".join(lines)


def _append_lines(message: Message, indent: str, depth: int, lines: list[str]) -> None:
    if depth > MAX_DEPTH:
        raise PrototxtError(f"cannot write a prototxt: messages are nested deeper than {MAX_DEPTH} levels")
    for name, value in message:
        if isinstance(value, Message):
            lines.append(f"{indent}{name} {{\n")
            _append_lines(value, indent + "  ", depth + 1, lines)
            lines.append(f"{indent}}}\n")
        elif isinstance(value, str) and not isinstance(value, Identifier):
            lines.append(f"{indent}{name}: {_quoted_string(value)}\n")
        else:
            lines.append(f"{indent}{name}: {value}\n")


def _quoted_string(value: str) -> str:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PrototxtError(f"cannot write a prototxt: the string {value!r} is not Unicode text") from None
    # Three octal digits, unlike \x, cannot run into a digit that follows.
    return '"' + _UNPRINTABLE.sub(lambda found: _PRINTED.get(found[0]) or f"\\{ord(found[0]) & 255:03o}", value) + '"'
