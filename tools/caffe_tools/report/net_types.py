"""``caffe-layers layers NET.prototxt``: the types of a net, all phases together, and which are covered."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from caffe_tools import prototxt, standard
from caffe_tools.errors import nearest
from caffe_tools.net.user_modules import ALWAYS_ALLOWED
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.upgrade import upgrade
from caffe_tools.report.tables import new_table


def print_types(console: Console, path: str) -> None:
    """A row for each type: how many layers have it, and what it takes to run them."""
    layers = upgrade(prototxt.load(path)).messages("layer")
    counts = Counter(map(_type_of, layers))
    table = new_table(path, ("type", "layers", ""), right=("layers",))
    for (name, module, class_), count in sorted(counts.items()):
        type_ = f"{name} {module}.{class_}" if module else name
        table.add_row(type_, str(count), _what_it_takes(name, module, class_))
    console.print(table)
    missing = sum(bool(_what_it_takes(*kind)) for kind in counts)
    console.print(f"{len(counts) - missing} of {len(counts)} types are covered.")


def _type_of(layer: Message) -> tuple[str, str, str]:
    """The type, and the module and class of a Python layer."""
    param = layer.first("python_param") if layer.first("type") == "Python" else None
    named = [str(param.first(field, "")) for field in ("module", "layer")] if isinstance(param, Message) else ["", ""]
    return str(layer.first("type", "")), named[0], named[1]


def _what_it_takes(name: str, module: str, class_: str) -> str:
    if name == "Python":
        known = module.partition(".")[0] == ALWAYS_ALLOWED or (module, class_) in standard.PYTHON_TYPES
        return "" if known else f"--allow-module {module}" if module else "it names no module"
    return "" if name in standard.TYPES else f"not covered: {nearest(name, standard.TYPES)}".rstrip(": ")
