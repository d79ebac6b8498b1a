"""``param_str``: a declared, typed and validated mapping of literals, read without eval.

All of these say the same::

    {"axis": 1, "normalization": "VALID"}          JSON
    {'axis': 1, 'normalization': 'VALID'}          Python, with or without the braces
    axis: 1, normalization: VALID                  YAML's flow style
    axis: 1                                        YAML's block style, one `key: value` a line, `#` comments
    normalization: VALID
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import numbers
import re
from collections import namedtuple


class ValueRefused(ValueError):
    """Text or a value that is no valid parameter. Layers raise it on as ParameterError, under their own name."""


Kind = namedtuple("Kind", "text accept choices per_class", defaults=((), False))
"""What a parameter may be: readable text, and a function that gives the accepted value or raises ValueRefused.

``choices`` are the words that it may be, where it is a choice; ``per_class`` says that a list has a number per class.
"""


class Parameter:
    """One key of ``param_str``: ``name``, ``default``, ``kind`` (readable text) and ``doc`` (one line).

    ``choices`` and ``per_class`` are those of its :data:`Kind`.
    """

    def __init__(self, name, kind, default, doc):
        self.name = name
        self.kind = kind.text
        self.default = default
        self.doc = doc
        self.choices, self.per_class = kind.choices, kind.per_class
        self._accept = kind.accept

    def accept(self, value):
        """The value in its effective form. Raises ValueRefused where it is not of this parameter's kind."""
        try:
            return self._accept(value)
        except ValueRefused:
            raise ValueRefused(f"parameter '{self.name}' is {value!r}, but must be {self.kind}") from None

    def __repr__(self):
        return f"Parameter({self.name}: {self.kind}, default {self.default!r})"


def read(text, parameters):
    """The effective values, name to value, that ``param_str`` gives to the declared parameters."""
    return complete(parse(text), parameters)


def complete(given, parameters):
    """The effective values, name to value: those given, checked, and the defaults of the others."""
    declared = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = f", did you mean '{near[0]}'?" if near else ";"
            valid = ", ".join(f"{p.name} ({p.kind})" for p in parameters) or "none"
            raise ValueRefused(f"unknown parameter '{name}'{hint} the valid ones are: {valid}")
    return {
        name: parameter.accept(given[name]) if name in given else parameter.default
        for name, parameter in declared.items()
    }


# --- kinds -----------------------------------------------------------------------------------------------------------


def _integer(low):
    def accept(value):
        if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= low:
            return int(value)
        raise ValueRefused

    return accept


def _number(low, high, high_is_in=True):
    def accept(value):
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
            if low <= value <= high and (high_is_in or value < high):
                return float(value)
        raise ValueRefused

    return accept


def _list(accept_item):
    def accept(value):
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, (list, tuple)) and value:
            return [accept_item(item) for item in value]
        raise ValueRefused

    return accept


def _text(value):
    if isinstance(value, str) and value:
        return value
    raise ValueRefused


def _boolean(value):
    if isinstance(value, bool):
        return value
    raise ValueRefused


def _any_of(*accepts):
    def accept(value):
        for one in accepts:
            try:
                return one(value)
            except ValueRefused:
                continue
        raise ValueRefused

    return accept


def _null(value):
    if value is None:
        return None
    raise ValueRefused


def or_null(kind):
    """The kind that takes null too."""
    return kind._replace(text=f"{kind.text}, or null", accept=_any_of(_null, kind.accept))


def choice(*words):
    """The kind that takes one of the words."""

    def accept(value):
        if isinstance(value, str) and value in words:
            return value
        raise ValueRefused

    return Kind("one of " + " | ".join(words), accept, words)


INTEGER = Kind("an integer", _integer(-math.inf))
INTEGER_FROM_0 = Kind("an integer, 0 or more", _integer(0))
INTEGER_FROM_1 = Kind("an integer, 1 or more", _integer(1))
BOOLEAN = Kind("true or false", _boolean)
TEXT = Kind("text", _text)
TEXTS = Kind("a list of texts", _list(_text))
NOT_NEGATIVE = Kind("a number, 0 or more", _number(0, math.inf))
BELOW_ONE = Kind("a number of [0, 1)", _number(0, 1, high_is_in=False))
_WEIGHTS = _list(_number(0, math.inf))
WEIGHTS = Kind("a list of numbers, 0 or more, one per class", _WEIGHTS, per_class=True)
WEIGHT_OR_WEIGHTS = Kind(
    "a number, 0 or more, or a list of them, one per class", _any_of(_number(0, math.inf), _WEIGHTS), per_class=True
)
FRACTION_OR_WEIGHTS = Kind(
    "a number of [0, 1], or a list of numbers, 0 or more, one per class",
    _any_of(_number(0, 1), _WEIGHTS),
    per_class=True,
)


# --- text ------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+ | \#[^\n]*)
    | (?P<line>\n)
    | (?P<mark>[{}\[\](),:])
    | (?P<quoted>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
    | (?P<bare>[A-Za-z_]\w+(?=[ \t]*:) | [^\s{}\[\](),:'"\#](?:[^\n{}\[\](),:'"\#]|:(?!\s))*)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS: dict[str, object] = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS.update({"null": None, "Null": None, "NULL": None, "None": None, "~": None})
_WORDS.update({word: math.nan for word in ("nan", "NaN", "NAN", ".nan", ".NaN")})
_WORDS.update({sign + word: float(sign + "inf") for sign in ("", "-") for word in ("inf", "Infinity", ".inf", "Inf")})
_CLOSING = {"{": "}", "[": "]", "(": ")"}


def parse(text):
    """The mapping that a ``param_str`` writes. Raises ValueRefused, with the place, where it writes none."""
    tokens = _tokens(text)
    mapping = {}
    if _skip_lines(tokens)[0] == "{":
        _next(tokens)
        mapping = _mapping(tokens, "}")
    elif tokens[0][0] != "end":
        mapping = _mapping(tokens, "end")
    if _skip_lines(tokens)[0] != "end":
        _refuse(tokens[0], "the end")
    return mapping


def _tokens(text):
    """A list of (mark or kind, text, place), next one first."""
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueRefused(f"param_str, character {at + 1}: {text[at]!r} does not belong here (an open quote?)")
        kind = match.lastgroup
        if kind != "space":
            tokens.append((match.group() if kind == "mark" else kind, match.group().strip(" \t\r"), at))
        at = match.end()
    return tokens + [("end", "the end", at)]


def _next(tokens):
    return tokens.pop(0)


def _skip_lines(tokens):
    while tokens[0][0] == "line":
        _next(tokens)
    return tokens[0]


def _refuse(token, wanted):
    found = "the end of the line" if token[0] == "line" else "the end" if token[0] == "end" else repr(token[1])
    raise ValueRefused(f"param_str, character {token[2] + 1}: found {found} where {wanted} is wanted")


def _mapping(tokens, end):
    """What stands between braces, or all of the text where there are none: there, a line ends an entry."""
    mapping = {}
    while _skip_lines(tokens)[0] != end:
        key_token = _next(tokens)
        if key_token[0] not in ("quoted", "bare"):
            _refuse(key_token, "a parameter's name")
        key = _scalar(key_token) if key_token[0] == "quoted" else key_token[1]
        if end == "}":
            _skip_lines(tokens)
        colon = _next(tokens)
        if colon[0] != ":":
            _refuse(colon, f"a colon after {key!r}")
        if key in mapping:
            raise ValueRefused(f"param_str, character {key_token[2] + 1}: parameter {key!r} is given twice")
        if end == "}":
            _skip_lines(tokens)
        mapping[key] = _value(tokens)
        separator = tokens[0] if end == "end" else _skip_lines(tokens)
        if separator[0] == "," or (separator[0] == "line" and end == "end"):
            _next(tokens)
        elif separator[0] != end:
            _refuse(separator, "a comma" if end == "}" else "a comma or a new line")
    if end == "}":
        _next(tokens)
    return mapping


def _value(tokens):
    token = _next(tokens)
    if token[0] == "{":
        return _mapping(tokens, "}")
    if token[0] in ("[", "("):
        items, end = [], _CLOSING[token[0]]
        while _skip_lines(tokens)[0] != end:
            items.append(_value(tokens))
            if _skip_lines(tokens)[0] == ",":
                _next(tokens)
            elif tokens[0][0] != end:
                _refuse(tokens[0], f"a comma or {end!r}")
        _next(tokens)
        return items
    if token[0] not in ("quoted", "bare"):
        _refuse(token, "a value")
    return _scalar(token)


def _scalar(token):
    kind, text, at = token
    if kind == "quoted":
        # The escapes of JSON and Python agree where both read them, but for JSON's pairs of surrogates.
        if text[0] == '"':
            try:
                return json.loads(text)
            except ValueError:
                pass
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise ValueRefused(f"param_str, character {at + 1}: {text} is no valid text") from None
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    return text
