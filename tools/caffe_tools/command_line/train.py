"""``caffe-layers train``: trains as ``caffe train`` does, and prints the same lines."""

from __future__ import annotations

import argparse
import math
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from caffe_tools.errors import CaffeToolsError, SolverError
from caffe_tools.training.training import ENGINES, Evaluation, Event, Iteration, Output, Snapshotted, Training

DONE, INTERRUPTED = 0, 130
"""The exit codes; bad input has 2, as with every command."""
FEW = 10
"""Outputs of more elements are shown by their range; Caffe prints every element."""


def add_train_command(commands) -> None:
    """Add ``train`` to the subparsers of the command line."""
    text = "train a net with a Caffe solver"
    command = commands.add_parser("train", help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=run_train)
    command.add_argument("solver", metavar="SOLVER.prototxt")
    command.add_argument("--weights", action="append", default=[], metavar="F.caffemodel", help="start from these")
    command.add_argument("--snapshot", metavar="F.solverstate", help="go on where this snapshot was taken")
    command.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="layers",
        help="run the training net layer by layer, or as one exported ONNX graph (default: %(default)s)",
    )
    command.add_argument("--iterations", type=_count, metavar="N", help="end after N iterations (default: at max_iter)")
    command.add_argument("--seed", type=_count, help="of fillers and Dropout (default: random_seed, or else 0)")
    command.add_argument(
        "--allow-module",
        action="append",
        default=[],
        metavar="NAME",
        help="import Python layers from this module too (code from a stranger runs!)",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative: give 0 or more")
    return value


def run_train(options: argparse.Namespace) -> int:
    """Train, print, and say at an interruption how to go on; the exit code."""
    training = _prepared(options)
    until = training.solver.max_iter
    if options.iterations is not None:
        until = training.iteration + options.iterations
    console = Console(highlight=False, soft_wrap=True)
    last, told_not_finite = None, False
    with _stopping_at_signals(training) as received, _progress(console, training, until) as advance:
        for event in training.run(until):
            _show(console, event)
            if isinstance(event, Snapshotted):
                last = event
            if isinstance(event, Iteration):
                advance(event)
                if not math.isfinite(event.loss) and not told_not_finite:
                    told_not_finite = True
                    console.print(f"note: the loss is {event.loss} at iteration {event.iteration}: a lower base_lr?")
    if received and training.iteration < until:
        console.print(f"Stopped after {training.iteration} of {until} iterations. Go on with:")
        console.print(f"  caffe-layers train {_go_on(options, last, until - training.iteration)}", markup=False)
        return INTERRUPTED
    console.print("Optimization Done.")
    return DONE


def _prepared(options: argparse.Namespace) -> Training:
    if options.weights and options.snapshot:
        raise CaffeToolsError("give --weights to start from, or --snapshot to go on from, not both")
    training = Training(options.solver, engine=options.engine, allow_modules=options.allow_module, seed=options.seed)
    _check_that_data_comes_in(training)
    if options.snapshot:
        training.restore(options.snapshot)
    else:
        # the command line beats the solver; each may list several, as in Caffe
        for path in ",".join(options.weights or training.solver.weights).split(","):
            if path:
                training.copy_from(path)
    return training


def _check_that_data_comes_in(training: Training) -> None:
    for name, net in training.named_nets():
        for top in net.inputs:
            layer = next(layer for layer in net.spec.layers if top in layer.tops)
            raise SolverError(
                f"{layer.place}: nothing fills its top {top!r} of the {'training' if name == 'train' else 'test'} net:"
                " put a Python data layer in its place, such as NpzDataLayer of caffe_layers"
            )


def _go_on(options: argparse.Namespace, last: Snapshotted, left: int) -> str:
    words = [options.solver, "--snapshot", str(last.path)]
    if options.engine != "layers":
        words += ["--engine", options.engine]
    if options.iterations is not None:
        words += ["--iterations", str(left)]
    for module in options.allow_module:
        words += ["--allow-module", module]
    return shlex.join(words)


@contextmanager
def _stopping_at_signals(training: Training) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM ends the run after its iteration, a second one at once; those received."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        received.append(number)
        training.stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What is printed ------------------------------------------------------------------------------------------------------


def _show(console: Console, event: Event) -> None:
    """The lines of Caffe's log."""
    if isinstance(event, Iteration) and event.outputs is not None:
        console.print(f"Iteration {event.iteration}, loss = {event.smoothed_loss:.6g}", markup=False)
        _show_outputs(console, "Train", event.outputs)
        if event.rate is not None:
            console.print(f"Iteration {event.iteration}, lr = {event.rate:.6g}")
    elif isinstance(event, Evaluation):
        console.print(f"Iteration {event.iteration}, Testing net (#{event.net})", markup=False)
        if event.loss is not None:
            console.print(f"    Test loss: {event.loss:.6g}")
        _show_outputs(console, "Test", event.outputs)
    elif isinstance(event, Snapshotted):
        console.print(f"Snapshot {event.path}", markup=False)


def _show_outputs(console: Console, kind: str, outputs: list[Output]) -> None:
    number = 0
    for output in outputs:
        values = output.values.reshape(-1).tolist()
        if len(values) > FEW:
            shape = "×".join(map(str, output.values.shape))
            text = f"{shape} values from {min(values):.6g} to {max(values):.6g}"
            console.print(f"    {kind} net output #{number}: {output.name} = {text}", markup=False)
        for value in values if len(values) <= FEW else []:
            weight = output.loss_weight
            weighted = f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""
            console.print(f"    {kind} net output #{number}: {output.name} = {value:.6g}{weighted}", markup=False)
            number += 1
        number += len(values) if len(values) > FEW else 0


@contextmanager
def _progress(printing: Console, training: Training, until: int) -> Iterator[Callable[[Iteration], None]]:
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
