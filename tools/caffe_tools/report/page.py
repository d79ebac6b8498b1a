"""The HTML page of ``check``."""

from __future__ import annotations

import html
from collections.abc import Sequence

from caffe_tools.check.compare import CheckResult
from caffe_tools.report.tables import (
    BY_ITSELF,
    CHECK_COLUMNS,
    DIFFERENCES,
    check_cells,
    check_columns,
    check_notes,
    check_title,
    check_verdict,
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


def check_as_html(results: Sequence[CheckResult]) -> str:
    """The tables of ``print_check`` as one page that needs no other file."""
    parts = [HTML_HEAD]
    side = {heading: "right" if heading in (*DIFFERENCES, BY_ITSELF) else "left" for heading in CHECK_COLUMNS}
    for result in results:
        shown = check_columns(result)
        headings = "".join(f'<th class="{side[heading]}">{heading}</th>' for heading in shown)
        parts.append(f"<h2>{html.escape(check_title(result))}</h2>\n<table>\n<tr>{headings}</tr>")
        for row in result.rows:
            cells = zip(shown, check_cells(row, shown), strict=True)
            columns = "".join(f'<td class="{side[heading]}">{html.escape(cell)}</td>' for heading, cell in cells)
            parts.append(f'<tr class="{"agrees" if row.agrees else "differs"}">{columns}</tr>')
        parts.append("</table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in check_notes(result)]
        parts.append(f'<p class="{"agrees" if result.agrees else "differs"}">{html.escape(check_verdict(result))}</p>')
    return "\n".join([*parts, "</body></html>", ""])
