"""The tables that the command line prints."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caffe_tools.check.compare import CheckResult, Difference
from caffe_tools.check.gradcheck import GradientRow
from caffe_tools.net.net import Net

PIPE_WIDTH = 120
"""Columns of a table that goes into a pipe or a file."""
CHECK_COLUMNS = (
    ("value", "left"),
    ("shape", "left"),
    ("largest", "right"),
    ("absolute diff.", "right"),
    ("relative diff.", "right"),
    ("at", "left"),
    ("", "left"),
)
HTML_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>caffe-layers check</title><style>
body { font: 14px/1.4 sans-serif; margin: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: 2px 10px; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
.right { text-align: right }
.agrees td:last-child, p.agrees { color: #060 }
.differs td:last-child, p.differs { color: #b00; font-weight: bold }
</style></head><body>"""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line to end without a word (rich would exit with 1, which says "disagrees")."""
        raise BrokenPipeError


def make_console() -> Console:
    """The console of standard output: coloured on a terminal, plain and wide enough in a pipe."""
    return _Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def print_check(console: Console, results: Sequence[CheckResult]) -> None:
    """One table and one closing line for each comparison."""
    for result in results:
        table = Table(title=_title(result), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading, justify in CHECK_COLUMNS:
            table.add_column(heading, justify=justify, overflow="fold")
        for row in result.rows:
            style = "green" if row.agrees else "bold red"
            *cells, outcome = _cells(row)
            table.add_row(*map(Text, cells), Text(outcome, style=style))
        console.print(table)
        for note in result.notes:
            console.print(Text(f"note: {note}"), soft_wrap=True)
        console.print(Text(_verdict(result), style="green" if result.agrees else "bold red"), soft_wrap=True)


def check_as_html(results: Sequence[CheckResult]) -> str:
    """The same tables as one page that needs no other file."""
    parts = [HTML_HEAD]
    for result in results:
        headings = "".join(f'<th class="{justify}">{heading}</th>' for heading, justify in CHECK_COLUMNS)
        parts.append(f"<h2>{html.escape(_title(result))}</h2>\n<table>\n<tr>{headings}</tr>")
        for row in result.rows:
            cells = zip(_cells(row), CHECK_COLUMNS, strict=True)
            columns = "".join(f'<td class="{justify}">{html.escape(cell)}</td>' for cell, (_, justify) in cells)
            parts.append(f'<tr class="{"agrees" if row.agrees else "differs"}">{columns}</tr>')
        parts.append("</table>")
        parts += [f"<p>note: {html.escape(note)}</p>" for note in result.notes]
        parts.append(f'<p class="{"agrees" if result.agrees else "differs"}">{html.escape(_verdict(result))}</p>')
    return "\n".join([*parts, "</body></html>", ""])


def _title(result: CheckResult) -> str:
    return f"{result.net or 'net'} ({result.phase}): {result.run} against {result.reference}"


def _cells(row: Difference) -> tuple[str, ...]:
    """What the table says of one array, column by column."""
    if row.agrees:
        outcome = f"agrees ({row.not_finite} of them not finite)" if row.not_finite else "agrees"
    else:
        outcome = f"DIFFERS: {row.note}" if row.note else "DIFFERS"
    at = ",".join(map(str, row.where))
    return (row.key, dims(row.shape), f"{row.largest:.4g}", f"{row.absolute:.1e}", f"{row.relative:.1e}", at, outcome)


def _verdict(result: CheckResult) -> str:
    wrong = result.first_wrong
    if wrong is None:
        worst = max((row.relative for row in result.rows), default=0.0)
        return f"{_what(result)} agree (largest relative difference {worst:.1e}, allowed {result.rtol:g})."
    number = sum(not row.agrees for row in result.rows)
    how = wrong.note or (
        f"off by {wrong.absolute:.3g} at {wrong.where} ({wrong.relative:.1e} of its largest value,"
        f" allowed {result.rtol:g})"
    )
    return f"{number} of {len(result.rows)} differ. The first that goes wrong: {describe(wrong)}: {how}."


def _what(result: CheckResult) -> str:
    """All 8 blobs and 14 gradients: how many of each kind were compared."""
    kinds = {"blob": ("data/",), "gradient": ("diff/", "pdiff/"), "statistic": ("param_after/",)}
    counts = [(sum(row.key.startswith(keys) for row in result.rows), kind) for kind, keys in kinds.items()]
    words = [f"{number} {kind}{'s' if number > 1 else ''}" for number, kind in counts if number]
    return "All " + (" and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing")


def describe(row: Difference) -> str:
    """``diff/conv1`` in words."""
    kind, _, name = row.key.partition("/")
    by = f" (layer {row.layer!r})" if row.layer else ""
    words = {
        "data": f"blob {name!r}",
        "diff": f"the gradient of blob {name!r}",
        "pdiff": f"the gradient of parameter {name!r}",
        "param_after": f"stored blob {name!r} after the forward pass",
    }
    return words.get(kind, row.key) + by


def print_run(console: Console, net: Net, backward: bool) -> None:
    """The outputs of a net with their range, and the total loss."""
    table = Table(title=f"{net.name or 'net'} ({net.phase})", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("blob")
    table.add_column("shape")
    for heading in ("least", "mean", "greatest"):
        table.add_column(heading, justify="right")
    rows = {name: net.blobs[name].data for name in net.outputs}
    if backward:
        rows |= {f"{name}.diff": blob.diff for name, blob in net.learnable.items()}
    for name, array in rows.items():
        numbers = [f"{f(array):.6g}" for f in (np.min, np.mean, np.max)] if array.size else [""] * 3
        table.add_row(Text(name), dims(array.shape), *numbers)
    console.print(table)
    if any(any(placed.loss_weights) for placed in net.placed):
        console.print(f"total loss {net.total_loss:.6g}")


def print_export(console: Console, model: ir.Model, path: str) -> None:
    """What the written model takes and gives."""
    graph = model.graph
    table = Table(
        title=f"{path}: opset {graph.opset_imports['']}, {len(list(graph))} nodes",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("", "name", "shape"):
        table.add_column(heading)
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            table.add_row(kind, Text(value.name), dims([getattr(dim, "value", dim) for dim in value.shape]))
    console.print(table)


def print_gradcheck(console: Console, layer: str, rows: Sequence[GradientRow]) -> None:
    """For each bottom the element whose gradient is furthest off."""
    table = Table(
        title=f"{layer}: backward against central differences (float64)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("blob", "shape", "worst at", "backward", "central difference", "relative diff.", ""):
        table.add_column(heading)
    for row in rows:
        wrong = f"DIFFERS: {row.note}" if row.note else "DIFFERS"
        verdict = Text("agrees", style="green") if row.agrees else Text(wrong, style="bold red")
        table.add_row(
            Text(row.blob),
            dims(row.shape),
            ",".join(map(str, row.where)),
            f"{row.backward:.9g}",
            f"{row.difference:.9g}",
            f"{row.relative:.1e}",
            verdict,
        )
    console.print(table)


def dims(shape: Sequence) -> str:
    return "×".join(map(str, shape)) or "scalar"
