"""What ``train`` prints: the lines of Caffe's log, and a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from caffe_tools.training.training import Evaluation, Event, Iteration, Output, Snapshotted, Training

FEW = 10
"""Outputs of more elements are shown by their range; Caffe prints every element."""


def print_event(console: Console, event: Event) -> None:
    """The lines of Caffe's log."""
    if isinstance(event, Iteration) and event.outputs is not None:
        console.print(f"Iteration {event.iteration}, loss = {event.smoothed_loss:.6g}")
        _print_outputs(console, "Train", event.outputs)
        if event.rate is not None:
            console.print(f"Iteration {event.iteration}, lr = {event.rate:.6g}")
    elif isinstance(event, Evaluation):
        console.print(f"Iteration {event.iteration}, Testing net (#{event.net})")
        if event.loss is not None:
            console.print(f"    Test loss: {event.loss:.6g}")
        _print_outputs(console, "Test", event.outputs)
    elif isinstance(event, Snapshotted):
        console.print(f"Snapshot {event.path}")


def _print_outputs(console: Console, kind: str, outputs: Iterable[Output]) -> None:
    """Every element with its number among the elements of all outputs, as Caffe counts them."""
    number = 0
    for output in outputs:
        values = output.values.reshape(-1).tolist()
        if len(values) > FEW:
            shape = "×".join(map(str, output.values.shape))
            told = [f"{shape} values from {min(values):.6g} to {max(values):.6g}"]
        else:
            weight = output.loss_weight
            told = [f"{v:.6g}" + (f" (* {weight:g} = {weight * v:.6g} loss)" if weight else "") for v in values]
        for offset, text in enumerate(told):
            console.print(f"    {kind} net output #{number + offset}: {output.name} = {text}")
        number += len(values)


@contextmanager
def progress_bar(printing: Console, training: Training, until: int) -> Iterator[Callable[[Iteration], None]]:
    """A bar on a terminal alone, below what ``printing`` prints; the function to call with every iteration."""
    console = printing if printing.is_terminal else Console(stderr=True)
    if not console.is_terminal:
        yield lambda event: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=console is printing) as bar:
        task = bar.add_task("training", total=until, completed=training.iteration)
        yield lambda event: bar.update(
            task, completed=training.iteration, description=f"loss {event.smoothed_loss:.4g}"
        )
