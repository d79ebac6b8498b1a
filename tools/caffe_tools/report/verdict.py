"""What ``crosscheck`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from caffe_tools.referee.referee import Verdict, VerdictRow
from caffe_tools.report.tables import DIFFERENCES, GOOD, WRONG, make_console, new_table


def print_verdict(verdict: Verdict) -> None:
    """Each tensor on the probe that shows it worst, then notes, diagnoses and a closing line."""
    console = make_console()
    probes = list(dict.fromkeys(row.probe for row in verdict.rows))
    title = f"{verdict.graph} against {verdict.layer} (float64), on {_number(len(probes), 'probe')}"
    table = new_table(title, ("tensor", "is", "furthest off on", *DIFFERENCES, ""), right=DIFFERENCES)
    for tensor in dict.fromkeys(row.tensor for row in verdict.rows):
        rows = [row for row in verdict.rows if row.tensor == tensor]
        counting = [row for row in rows if row.counts] or rows
        worst = max(counting, key=lambda row: (not row.agrees, row.relative if row.agrees else row.absolute))
        table.add_row(*_cells(worst, sum(not row.agrees for row in counting), len(counting)))
    console.print(table)
    for note in verdict.notes:
        console.print(f"note: {note}.", soft_wrap=True)
    for diagnosis in verdict.diagnoses:
        console.print(f"{diagnosis.text}.", style=WRONG, soft_wrap=True)
        if diagnosis.numbers:
            console.print(f"  {diagnosis.numbers}")
        for alternative in diagnosis.alternatives:
            console.print(f"  or: {alternative}")
    console.print(_closing(verdict, probes), soft_wrap=True)


def _cells(row: VerdictRow, wrong: int, probes: int) -> Sequence[str | Text]:
    verdict = Text("agrees", style=GOOD)
    if wrong:
        verdict = Text(row.note or f"DIFFERS on {wrong} of {probes}", style=WRONG)
    elif not row.agrees:
        verdict = Text(row.note, style="yellow")
    return (
        row.tensor,
        f"gradient by {row.of}" if row.of else "loss",
        row.probe,
        f"{row.largest:.4g}",
        f"{row.absolute:.1e}",
        f"{row.relative:.1e}",
        verdict,
    )


def _closing(verdict: Verdict, probes: Sequence[str]) -> Text:
    if verdict.agrees:
        gradients = len({row.tensor for row in verdict.rows if row.of})
        what = "The loss" + (f" and {_number(gradients, 'gradient')}" if gradients else "")
        return Text(f"{what} agree{'' if gradients else 's'} on {', '.join(probes)}.", style=GOOD)
    wrong = dict.fromkeys(row.probe for row in verdict.rows if row.counts and not row.agrees)
    return Text(f"The graph does not compute this loss: it differs on {', '.join(wrong)}.", style=WRONG)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
