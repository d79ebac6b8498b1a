"""The errors of caffe_tools. The text of every one is a single line that the command line prints as it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class CaffeToolsError(Exception):
    """Bad input. The command line prints its text and exits with 2."""


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


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """``did you mean 'x'?`` with the names of ``known`` that ``name`` may be a slip of, ``most`` at the most; or ""."""
    near = difflib.get_close_matches(name, list(known), most, cutoff)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def some_of(names: Sequence[str], most: int = 20) -> str:
    """The names, quoted; of more than ``most`` the first ones, and how many more there are."""
    listed = ", ".join(map(repr, names[:most]))
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
