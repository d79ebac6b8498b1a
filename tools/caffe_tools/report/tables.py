"""The tables that the command line prints."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import onnx_ir as ir

    from caffe_tools.check.compare import CheckResult, Difference
    from caffe_tools.net.net import Net

PIPE_WIDTH = 120
"""Columns of a table that goes into a pipe or a file."""
GOOD, WRONG = "green", "bold red"
"""The styles of what agrees and what differs."""
DIFFERENCES = ("largest", "absolute diff.", "relative diff.")
BY_ITSELF = "by itself"
"""The relative difference of the layer alone, given what the other side has."""
CHECK_COLUMNS = ("value", "shape", *DIFFERENCES, "at", BY_ITSELF, "")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line to end without a word (rich would exit with 1, which says "disagrees")."""
        raise BrokenPipeError


def make_console(soft_wrap: bool = False) -> Console:
    """The console of standard output: coloured on a terminal, plain and wide enough in a pipe; text stays as it is."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return _Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)


def new_table(title: str, headings: Iterable[str], right: Collection[str] = ()) -> Table:
    """An empty table; ``right`` are the headings of the columns that stand on the right. No cell is cut off."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def print_check(results: Sequence[CheckResult]) -> None:
    """One table and one closing line for each comparison."""
    console = make_console()
    for result in results:
        columns = check_columns(result)
        table = new_table(check_title(result), columns, right=(*DIFFERENCES, BY_ITSELF))
        for row in result.rows:
            *cells, outcome = check_cells(row, columns)
            table.add_row(*cells, Text(outcome, style=GOOD if row.agrees else WRONG))
        console.print(table)
        for note in check_notes(result):
            console.print(note, soft_wrap=True)
        console.print(check_verdict(result), style=GOOD if result.agrees else WRONG, soft_wrap=True)


def check_title(result: CheckResult) -> str:
    return f"{result.net or 'net'} ({result.phase}): {result.run} against {result.reference}"


def check_columns(result: CheckResult) -> tuple[str, ...]:
    """The headings of a comparison's table: where the whole runs agree, no layer was tried by itself."""
    has_alone = any(row.by_itself for row in result.rows)
    return tuple(heading for heading in CHECK_COLUMNS if heading != BY_ITSELF or has_alone)


def check_notes(result: CheckResult) -> list[str]:
    """What is said below the table: notes, and why the whole runs differ where no layer does."""
    return [f"note: {note}" for note in result.notes] + [f"accumulated: {reason}" for reason in result.reasons]


def check_cells(row: Difference, columns: Collection[str] = CHECK_COLUMNS) -> list[str]:
    """What the table says of one array, column by column."""
    outcome = _outcome(row)
    if row.explained:
        outcome = "agrees by itself"
    if row.agrees and row.not_finite:
        outcome += f" ({row.not_finite} of them not finite)"
    differences = (f"{row.largest:.4g}", f"{row.absolute:.1e}", f"{row.relative:.1e}")
    alone = f"{row.by_itself.relative:.1e}" if row.by_itself else ""
    cells = (row.key, _dims(row.shape), *differences, ",".join(map(str, row.where)), alone, outcome)
    return [cell for heading, cell in zip(CHECK_COLUMNS, cells, strict=True) if heading in columns]


def check_verdict(result: CheckResult) -> str:
    wrong = result.first_wrong
    explained = [row for row in result.rows if row.explained]
    if wrong is None:
        worst = max((row.deciding.relative for row in result.rows), default=0.0)
        numbers = f"(largest relative difference {worst:.1e}, allowed {result.rtol:g})"
        if not explained:
            return f"{_what(result)} agree {numbers}{_without_evidence(result)}."
        gathered = max(row.relative for row in explained)
        return (
            f"{_what(result)} agree layer by layer {numbers}. What accumulates over the layers is more in"
            f" {len(explained)} of them (up to {gathered:.1e}), explained above{_without_evidence(result)}."
        )
    number = sum(not row.agrees for row in result.rows)
    deciding = wrong.deciding
    how = deciding.note or (
        f"off by {deciding.absolute:.3g} at {deciding.where} ({deciding.relative:.1e} of its largest value,"
        f" allowed {result.rtol:g})"
    )
    follow = f"{_without_evidence(result)}." + (
        f" {len(explained)} more differ by what they are given alone." if explained else ""
    )
    return f"{number} of {len(result.rows)} differ. The first that goes wrong: {_describe(wrong)}: {how}{follow}"


def _without_evidence(result: CheckResult) -> str:
    count = len(result.proves_nothing)
    return f"; {count} blob{'s prove' if count > 1 else ' proves'} nothing" if count else ""


def _what(result: CheckResult) -> str:
    """All 8 blobs and 14 gradients: how many of each kind were compared."""
    kinds = {"blob": ("data/",), "gradient": ("diff/", "pdiff/"), "statistic": ("param_after/",)}
    counts = [(sum(row.key.startswith(keys) for row in result.rows), kind) for kind, keys in kinds.items()]
    words = [f"{number} {kind}{'s' if number > 1 else ''}" for number, kind in counts if number]
    return "All " + (" and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing")


def _describe(row: Difference) -> str:
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


def print_run(net: Net, backward: bool) -> None:
    """The outputs of a net with their range, and the total loss."""
    numbers = ("least", "mean", "greatest")
    table = new_table(f"{net.name or 'net'} ({net.phase})", ("blob", "shape", *numbers), right=numbers)
    rows = {name: net.blobs[name].data for name in net.outputs}
    if backward:
        rows |= {f"{name}.diff": blob.diff for name, blob in net.learnable.items()}
    for name, array in rows.items():
        range_ = [f"{value:.6g}" for value in (array.min(), array.mean(), array.max())] if array.size else []
        table.add_row(name, _dims(array.shape), *range_)
    console = make_console()
    console.print(table)
    if any(any(placed.loss_weights) for placed in net.placed):
        console.print(f"total loss {net.total_loss:.6g}")


def print_export(model: ir.Model, path: str) -> None:
    """What the written model takes and gives."""
    graph = model.graph
    title = f"{path}: opset {graph.opset_imports['']}, {len(list(graph))} nodes"
    table = new_table(title, ("", "name", "shape"))
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            table.add_row(kind, value.name, _dims([getattr(dim, "value", dim) for dim in value.shape or ()]))
    make_console().print(table)


def _outcome(row: Difference) -> str:
    if row.agrees:
        return "agrees"
    return f"DIFFERS: {row.note}" if row.note else "DIFFERS"


def _dims(shape: Iterable[object]) -> str:
    return "×".join(map(str, shape)) or "scalar"
