"""``caffe-layers layers``: the layers that there are, with every parameter and its default.

``python -m caffe_tools.report.catalogue docs/layer_types.md`` writes the page of the Caffe types.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import caffe_layers
from caffe_tools import standard
from caffe_tools.errors import CaffeToolsError, nearest
from caffe_tools.files import write_text
from caffe_tools.prototxt.fields import Field

PLUGINS = 'plug-in layers (type: "Python", module: "caffe_layers")'
PAGE_START = """# The layer types

Every Caffe type that runs, exports and trains here, with the messages and fields that it takes; another field there is
an error, so that no option is ignored in silence. `engine` is taken and changes nothing. `caffe-layers layers TYPE`
shows types and defaults. A type that is missing here is refused by name; [architecture.md](architecture.md) shows how
to teach it. This page is written by `python -m caffe_tools.report.catalogue docs/layer_types.md`.
"""


def print_all(console: Console) -> None:
    """Every layer with the first line of its description."""
    plugins = {cls.__name__: cls for cls in caffe_layers.LAYERS}
    standards = {name: kind.function for name, kind in sorted(standard.TYPES.items())}
    for title, layers in ((PLUGINS, plugins), ("standard layers", standards)):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("layer")
        table.add_column("what it computes")
        for name, described in layers.items():
            table.add_row(name, Text(_first_line(described)))
        console.print(table)


def print_one(console: Console, name: str) -> None:
    """One layer's description and parameters; CaffeToolsError for an unknown name."""
    plugins = {cls.__name__: cls for cls in caffe_layers.LAYERS}
    if name in plugins:
        _print_plugin(console, plugins[name])
    elif name in standard.TYPES:
        _print_standard(console, standard.TYPES[name])
    else:
        known = [*plugins, *standard.TYPES]
        hint = nearest(name, known, most=3) or "`caffe-layers layers` lists them"
        raise CaffeToolsError(f"there is no layer {name!r}: {hint}")


def _print_plugin(console: Console, cls: Any) -> None:
    console.print(Text(f'{cls.__name__}   (type: "Python", module: "caffe_layers")', style="bold"))
    console.print(Text(inspect.getdoc(cls) or ""))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("param_str key", "type", "default", "meaning"):
        table.add_column(heading)
    for parameter in cls.parameters:
        table.add_row(parameter.name, Text(str(parameter.kind)), Text(repr(parameter.default)), Text(parameter.doc))
    console.print(table)


def _print_standard(console: Console, kind: standard.LayerType) -> None:
    console.print(Text(kind.name, style="bold"))
    console.print(Text(inspect.getdoc(kind.function) or ""))
    for message, fields in kind.messages.items():
        table = Table(title=message, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("field", "type", "default"):
            table.add_column(heading)
        _add_fields(table, fields, "")
        console.print(table)


def _add_fields(table: Table, fields: Mapping[str, Field], indent: str) -> None:
    for name, field in fields.items():
        default = "" if field.default is None or field.repeated else str(field.default)
        table.add_row(indent + name, Text(field.describe()), Text(default))


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def page() -> str:
    """The page of the Caffe types in Markdown: by chapter, what each computes, the fields it takes, and notes."""
    python = {f"Python: {kind.name}": kind for kind in standard.PYTHON_TYPES.values()}
    chapters: dict[str, list[str]] = {}
    for name, kind in [*sorted(standard.TYPES.items()), *sorted(python.items())]:
        first, _, rest = (inspect.getdoc(kind.function) or "").partition("\n\n")
        row = " | ".join(_markdown_cell(cell) for cell in (name, first, _markdown_fields(kind), rest))
        chapters.setdefault(kind.function.__module__.rpartition(".")[0], []).append(f"| {row} |")
    text = PAGE_START
    for package, rows in sorted(chapters.items()):
        title = f"## {package.rpartition('.')[2].capitalize()}\n\n{inspect.getdoc(sys.modules[package])}"
        text += "\n".join(["", title, "", "| type | computes | fields | notes |", "|---|---|---|---|", *rows, ""])
    return text


def _markdown_fields(kind: standard.LayerType) -> str:
    messages = {message: fields for message, fields in kind.messages.items() if message != "python_param"}
    return "; ".join(f"``{message}``: {', '.join(fields)}" for message, fields in messages.items())


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    write_text(sys.argv[1], page())
