"""The tables that the command line prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caffe_tools.check import CheckResult, Difference
from caffe_tools.gradcheck import GradientRow
from caffe_tools.net import Net

PIPE_WIDTH = 120
"""Columns of a table that goes into a pipe or a file."""


def make_console(**options: object) -> Console:
    """The console of standard output: coloured on a terminal, plain and wide enough in a pipe."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, **options)


def print_check(console: Console, results: Sequence[CheckResult]) -> None:
    """One table and one closing line for each comparison."""
    for result in results:
        console.print(_check_table(result))
        for note in result.notes:
            console.print(Text(f"note: {note}"))
        console.print(_verdict(result))


def _check_table(result: CheckResult) -> Table:
    title = f"{result.net or 'net'} ({result.phase}): {result.run} against {result.reference}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("value", overflow="fold")
    table.add_column("shape")
    for heading in ("largest", "absolute diff.", "relative diff."):
        table.add_column(heading, justify="right")
    table.add_column("at")
    table.add_column("")
    for row in result.rows:
        table.add_row(*_check_row(row))
    return table


def _check_row(row: Difference) -> Iterable[str | Text]:
    verdict = Text("agrees", style="green") if row.agrees else Text(row.note or "DIFFERS", style="bold red")
    at = ",".join(map(str, row.where))
    return (
        Text(row.key), dims(row.shape), f"{row.largest:.4g}", f"{row.absolute:.1e}",
        f"{row.relative:.1e}", at, verdict,
    )  # fmt: skip


def _verdict(result: CheckResult) -> Text:
    blobs = sum(row.key.startswith("data/") for row in result.rows)
    gradients = sum(row.key.startswith(("diff/", "pdiff/")) for row in result.rows)
    wrong = result.first_wrong
    if wrong is None:
        worst = max((row.relative for row in result.rows), default=0.0)
        return Text(
            f"All {blobs} blobs and {gradients} gradients agree (largest relative difference {worst:.1e},"
            f" allowed {result.rtol:g}).",
            style="green",
        )
    number = sum(not row.agrees for row in result.rows)
    return Text(
        f"{number} of {len(result.rows)} differ. The first that goes wrong: {describe(wrong)}: {wrong.note or 'off'}"
        f" by {wrong.absolute:.3g} at {wrong.where or 'everywhere'} ({wrong.relative:.1e} of its largest value,"
        f" allowed {result.rtol:g}).",
        style="bold red",
    )


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
        rows |= {f"{n}/{i}.diff": b.diff for n, blobs in net.params.items() for i, b in enumerate(blobs)}
    for name, array in rows.items():
        numbers = [f"{f(array):.6g}" for f in (np.min, np.mean, np.max)] if array.size else [""] * 3
        table.add_row(Text(name), dims(array.shape), *numbers)
    console.print(table)
    if any(any(weights) for weights in net.loss_weights):
        console.print(f"total loss {net.total_loss:.6g}")


def print_export(console: Console, model: onnx.ModelProto, path: str) -> None:
    """What the written model takes and gives."""
    graph = model.graph
    table = Table(title=f"{path}: opset {model.opset_import[0].version}, {len(graph.node)} nodes", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for heading in ("", "name", "shape"):
        table.add_column(heading)
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            table.add_row(kind, Text(value.name), dims(shape))
    console.print(table)


def print_gradcheck(console: Console, layer: str, rows: Sequence[GradientRow]) -> None:
    """For each bottom the element whose gradient is furthest off."""
    table = Table(title=f"{layer}: backward against central differences (float64)", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for heading in ("bottom", "shape", "worst at", "backward", "central difference", "relative diff.", ""):
        table.add_column(heading)
    for row in rows:
        verdict = Text("agrees", style="green") if row.agrees else Text("DIFFERS", style="bold red")
        table.add_row(
            f"bottom[{row.bottom}]", dims(row.shape), ",".join(map(str, row.where)), f"{row.backward:.9g}",
            f"{row.difference:.9g}", f"{row.relative:.1e}", verdict,
        )  # fmt: skip
    console.print(table)


def dims(shape: Sequence) -> str:
    return "×".join(map(str, shape)) or "scalar"
