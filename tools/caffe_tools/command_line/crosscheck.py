"""``caffe-layers crosscheck``: its options, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caffe_tools.command_line.commands import AGREES, DISAGREES
from caffe_tools.errors import GraphError
from caffe_tools.files import load_arrays, write_json
from caffe_tools.referee.referee import Verdict, VerdictRow, crosscheck
from caffe_tools.report.tables import make_console


def add_crosscheck_command(commands: argparse._SubParsersAction) -> None:
    """Add ``crosscheck`` to the command line's commands."""
    text = "judge the loss and the gradients of a training graph from elsewhere by a loss layer"
    command = commands.add_parser("crosscheck", help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=run_crosscheck)
    command.add_argument("graph", metavar="GRAPH.onnx")
    command.add_argument("--layer", required=True, metavar="CLASS", help="a loss of caffe_layers: SoftmaxLossLayer, …")
    command.add_argument("--param-str", default="", metavar="S", help="its parameters, as in a prototxt")
    command.add_argument(
        "--bottom",
        action="append",
        required=True,
        metavar="NAME",
        help="a tensor of the graph that is a bottom: once for the scores, then for the labels (and the weights)",
    )
    command.add_argument("--loss", required=True, metavar="NAME", help="the tensor that is the loss")
    command.add_argument(
        "--grad",
        action="append",
        default=[],
        metavar="NAME=OF",
        help="the tensor NAME is the gradient by OF: the scores, or what they are computed from (a weight)",
    )
    command.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="INPUT=PARAMETER",
        help="the tensor INPUT carries the layer's PARAMETER, as in w=class_weight",
    )
    command.add_argument(
        "--loss-weight", type=float, default=1.0, metavar="W", help="what the gradients are multiplied with (1)"
    )
    command.add_argument("--inputs", metavar="F.npz", help="arrays by the graph's own input names; else they are drawn")
    command.add_argument("--seed", type=int, default=0, help="of the drawn inputs")
    command.add_argument("--json", metavar="F", help="write the verdict as JSON")


def run_crosscheck(options: argparse.Namespace) -> int:
    """Judge, print, and give the exit code."""
    if len(options.grad) != len({pair.partition("=")[0] for pair in options.grad}):
        raise GraphError("--grad names a tensor twice")
    verdict = crosscheck(
        options.graph,
        options.layer,
        bottoms=options.bottom,
        loss=options.loss,
        gradients=dict(_pair(text, "--grad", "NAME=OF") for text in options.grad),
        param_str=options.param_str,
        parameters=dict(_pair(text, "--param", "INPUT=PARAMETER") for text in options.param),
        loss_weight=options.loss_weight,
        inputs=load_arrays(options.inputs) if options.inputs else None,
        inputs_from=options.inputs or "",
        seed=options.seed,
    )
    if options.json:
        write_json(options.json, verdict.as_json())
    print_verdict(make_console(), verdict)
    return AGREES if verdict.agrees else DISAGREES


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, separator, of = text.partition("=")
    if not separator or not name or not of:
        raise GraphError(f"{option} {text!r} is not of the form {form}")
    return name, of


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Each tensor on the probe that shows it worst, then notes, diagnoses and a closing line."""
    probes = list(dict.fromkeys(row.probe for row in verdict.rows))
    title = f"{verdict.graph} against {verdict.layer} (float64), on {_number(len(probes), 'probe')}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("is")
    table.add_column("furthest off on")
    for heading in ("largest", "absolute diff.", "relative diff."):
        table.add_column(heading, justify="right")
    table.add_column("")
    for tensor in dict.fromkeys(row.tensor for row in verdict.rows):
        rows = [row for row in verdict.rows if row.tensor == tensor]
        counting = [row for row in rows if row.counts] or rows
        worst = max(counting, key=lambda row: (not row.agrees, row.relative if row.agrees else row.absolute))
        table.add_row(*_cells(worst, sum(not row.agrees for row in counting), len(counting)))
    console.print(table)
    for note in verdict.notes:
        console.print(Text(f"note: {note}."))
    for diagnosis in verdict.diagnoses:
        console.print(Text(f"{diagnosis.text}.", style="bold red"))
        if diagnosis.numbers:
            console.print(Text(f"  {diagnosis.numbers}"))
        for alternative in diagnosis.alternatives:
            console.print(Text(f"  or: {alternative}"))
    console.print(_closing(verdict, probes))


def _cells(row: VerdictRow, wrong: int, probes: int) -> Sequence[str | Text]:
    verdict = Text("agrees", style="green")
    if wrong:
        verdict = Text(row.note or f"DIFFERS on {wrong} of {probes}", style="bold red")
    elif not row.agrees:
        verdict = Text(row.note, style="yellow")
    return (
        Text(row.tensor),
        Text(f"gradient by {row.of}" if row.of else "loss"),
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
        return Text(f"{what} agree{'' if gradients else 's'} on {', '.join(probes)}.", style="green")
    wrong = dict.fromkeys(row.probe for row in verdict.rows if row.counts and not row.agrees)
    return Text(f"The graph does not compute this loss: it differs on {', '.join(wrong)}.", style="bold red")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
