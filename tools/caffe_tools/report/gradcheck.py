"""What ``gradcheck`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from caffe_tools.check.gradcheck import GradientRow
from caffe_tools.report.tables import GOOD, WRONG, make_console, new_table


def print_gradcheck(layer: str, rows: Sequence[GradientRow]) -> None:
    """For each blob the element whose gradient is furthest off; what is to be said of it stands below."""
    title = f"{layer}: backward against central differences (float64)"
    table = new_table(title, ("blob", "shape", "worst at", "backward", "central difference", "relative diff.", ""))
    console = make_console()
    for row in rows:
        numbers = (f"{row.backward:.9g}", f"{row.difference:.9g}", f"{row.relative:.1e}")
        verdict = Text("agrees" if row.agrees else "DIFFERS", style=GOOD if row.agrees else WRONG)
        shape = "×".join(map(str, row.shape)) or "scalar"
        table.add_row(row.blob, shape, ",".join(map(str, row.where)), *numbers, verdict)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.blob} {'agrees' if row.agrees else 'differs'}: {row.note}.", soft_wrap=True)
