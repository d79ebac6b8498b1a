"""``caffe-layers layers``: the layers that there are, with every parameter and its default.

``python -m caffe_tools.report.catalogue docs/layer_types.md`` writes the page of the Caffe types.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from rich.console import Console

import caffe_layers
from caffe_tools import standard
from caffe_tools.errors import CaffeToolsError, nearest
from caffe_tools.files import write_text
from caffe_tools.report.tables import new_table

PLUGINS = 'plug-in layers (type: "Python", module: "caffe_layers")'
PAGE_START = """# The layer types

Every Caffe type that runs, exports and trains here, with the messages and fields that it takes; another field there is
an error, so that no option is ignored in silence. `engine` is taken and changes nothing. `caffe-layers layers TYPE`
shows types and defaults. A type that is missing here is refused by name; [architecture.md](architecture.md) shows how
to teach it. This page is written by `python -m caffe_tools.report.catalogue docs/layer_types.md`.
"""


def print_all(console: Console) -> None:
    """Every layer with the first line of its description."""
    standards = {name: kind.function for name, kind in sorted(standard.TYPES.items())}
    for title, layers in ((PLUGINS, _plugins()), ("standard layers", standards)):
        table = new_table(title, ("layer", "what it computes"))
        for name, described in layers.items():
            table.add_row(name, _first_line(described))
        console.print(table)


def print_one(console: Console, name: str) -> None:
    """One layer's description and parameters; CaffeToolsError for an unknown name."""
    plugins = _plugins()
    if name in plugins:
        _print_plugin(console, plugins[name])
    elif name in standard.TYPES:
        _print_standard(console, standard.TYPES[name])
    else:
        hint = nearest(name, [*plugins, *standard.TYPES], most=3) or "`caffe-layers layers` lists them"
        raise CaffeToolsError(f"there is no layer {name!r}: {hint}")


def _plugins() -> dict[str, Any]:
    return {cls.__name__: cls for cls in caffe_layers.LAYERS}


def _print_plugin(console: Console, cls: Any) -> None:
    console.print(f'{cls.__name__}   (type: "Python", module: "caffe_layers")', style="bold")
    console.print(inspect.getdoc(cls) or "")
    table = new_table("", ("param_str key", "type", "default", "meaning"))
    for parameter in cls.parameters:
        table.add_row(parameter.name, str(parameter.kind), repr(parameter.default), parameter.doc)
    console.print(table)


def _print_standard(console: Console, kind: standard.LayerType) -> None:
    console.print(kind.name, style="bold")
    console.print(inspect.getdoc(kind.function) or "")
    for message, fields in kind.messages.items():
        table = new_table(message, ("field", "type", "default"))
        for name, field in fields.items():
            default = "" if field.default is None or field.repeated else str(field.default)
            table.add_row(name, field.describe(), default)
        console.print(table)


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
