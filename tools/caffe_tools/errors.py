"""The errors of caffe_tools. The text of each is one line that the command line prints as it is; where several things
are wrong at once, a line that says how many, and one line for each."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar


class CaffeToolsError(Exception):
    """Bad input. The command line prints its text and exits with 2."""

    faults: Sequence[str]
    """What is wrong, a line for each."""

    def __init__(self, *faults: str) -> None:
        first = f"{len(faults)} things are wrong:"
        super().__init__("\n".join(faults if len(faults) < 2 else [first, *faults]))
        self.faults = faults


class PrototxtError(CaffeToolsError):
    """A prototxt that cannot be read, or a message that no prototxt can hold."""


class CaffemodelError(CaffeToolsError):
    """A .caffemodel or .binaryproto that cannot be read or written."""


class NetError(CaffeToolsError):
    """A net that Caffe would not build: its layers, blobs, shapes or parameters do not fit."""


class ExportError(CaffeToolsError):
    """A net that cannot be written as ONNX."""


class GraphError(CaffeToolsError):
    """An ONNX graph that cannot be built or differentiated."""


class SolverError(CaffeToolsError):
    """A solver that Caffe would not run, or a snapshot that does not fit it."""


def one_line(text: object) -> str:
    """The text (an error's, say) on a single line."""
    return " ".join(str(text).split())


def raised(error: BaseException) -> str:
    """An error of foreign code on a single line, with its type."""
    return one_line(f"{type(error).__name__}: {error}")


Error = TypeVar("Error", bound=CaffeToolsError)


def raise_all(errors: Sequence[Error]) -> None:
    """Raise what was found wrong, if anything was, as one error of the first one's type."""
    if errors:
        faults = dict.fromkeys(fault for error in errors for fault in error.faults)
        raise errors[0] if len(errors) == 1 else type(errors[0])(*faults)


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """``did you mean 'x'?`` with the names of ``known`` that ``name`` may be a slip of, ``most`` at the most; or "".

    Capitals, and what is neither letter nor digit, do not count."""
    plain: dict[str, list[str]] = {}
    for other in known:
        plain.setdefault(_plain(other), []).append(other)
    near = [other for found in difflib.get_close_matches(_plain(name), plain, most, cutoff) for other in plain[found]]
    return f"did you mean {' or '.join(map(repr, near[:most]))}?" if near else ""


def choice(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is none of ``known``: which one may be meant, else which there are."""
    known = list(known)
    return nearest(name, known) or f"it has {few(known) or 'none'}"


def _plain(name: str) -> str:
    # a damaged ONNX model has names that are bytes
    return re.sub(r"[\W_]", "", str(name)).lower() or str(name)


def few(names: Iterable[str], room: int = 90) -> str:
    """The names, with commas; where they need more than ``room`` characters the first ones, and how many more."""
    names = list(names)
    shown: list[str] = []
    for name in names:
        if shown and len(", ".join([*shown, name])) > room:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown)


def few_quoted(names: Iterable[str], room: int = 300) -> str:
    """The same with the names as Python writes them, which shows where one begins and ends."""
    return few(map(repr, names), room)


# Where in a user's code -----------------------------------------------------------------------------------------------

_NOT_THEIRS = ("caffe_tools", "caffe_layers", "caffe", "importlib")
_LIBRARIES = ("site-packages", "dist-packages")


def place_in_user_code(error: BaseException, module: str | None = None) -> str:
    """``habits.py, line 89``: the innermost place in a user's code that the error came through; "" where there is none.

    A user's code is what belongs to neither Python, nor this project, nor a library; the package of ``module``, which
    the user named, is theirs even where it is installed.
    """
    import sysconfig
    from traceback import walk_tb

    theirs = (module or "").partition(".")[0]
    python = os.path.realpath(sysconfig.get_path("stdlib")) + os.sep
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        path = os.path.realpath(frame.f_code.co_filename)
        is_library = path.startswith(python) or any(name in path.split(os.sep) for name in _LIBRARIES)
        if package not in _NOT_THEIRS and os.path.exists(path) and (package == theirs or not is_library):
            place = f"{short_path(path)}, line {line}"
    return place


def short_path(path: str) -> str:
    """The path as seen from the working directory, where it is below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
