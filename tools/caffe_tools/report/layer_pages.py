"""The sections of docs/layers.md: each plug-in layer as its docstring and its declared parameters say it.

``python -m caffe_tools.report.layer_pages docs/layers.md`` writes them between the two marks in the page.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

import caffe_layers
from caffe_layers.functional import FUNCTIONS
from caffe_layers.layer import PluginLayer
from caffe_tools.errors import CaffeToolsError

START = "<!-- the layers: python -m caffe_tools.report.layer_pages docs/layers.md writes them from their docstrings -->"
END = "<!-- their end -->"
EXAMPLES = "\n\nExamples:\n"


def sections() -> str:
    """A line of links and a section for every layer."""
    links = " · ".join(f"[{layer.__name__}](#{layer.__name__.lower()})" for layer in caffe_layers.LAYERS)
    return "\n\n".join([links, *map(section, caffe_layers.LAYERS)])


def section(layer: type[PluginLayer]) -> str:
    """What the layer computes, its parameters and an example, in Markdown."""
    text = (inspect.getdoc(layer) or "").partition(EXAMPLES)[0]
    text = re.sub(r":\w+:(?=`)", "", text.replace("::\n", ":\n").replace("``", "`"))
    parts = [f"## {layer.__name__}", text, parameter_table(layer)]
    examples = inspect.cleandoc((inspect.getdoc(FUNCTIONS.get(layer)) or "").partition(EXAMPLES)[2])
    if layer in FUNCTIONS:
        parts.append(f"```pycon\n{examples}\n```")
    return "\n\n".join(parts)


def parameter_table(layer: type[PluginLayer]) -> str:
    if not layer.parameters:
        return "No parameters."
    rows = ["| parameter | default | what it may be | what it does |", "|---|---|---|---|"]
    for parameter in layer.parameters:
        kind, doc = (text.replace("|", "\\|") for text in (parameter.kind, parameter.doc))
        rows.append(f"| `{parameter.name}` | `{json.dumps(parameter.default)}` | {kind} | {doc} |")
    return "\n".join(rows)


def with_sections(page: str) -> str:
    """The page's text with the sections as they are now; CaffeToolsError where it has no place for them."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise CaffeToolsError(f"the page has no place for the layers: no line {START} with {END} after it")
    return f"{before}{start}\n\n{sections()}\n\n{end}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_sections(path.read_text(encoding="utf-8")), encoding="utf-8")
