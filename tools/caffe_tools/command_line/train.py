"""Train a net with a Caffe solver.

It prints the lines of Caffe's log; an interruption ends the iteration, writes a snapshot and says how to go on.
"""

from __future__ import annotations

import argparse
import glob
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from caffe_tools.command_line.shared import (
    DISAGREES,
    DONE,
    INTERRUPTED,
    REPEATED,
    account_for_weights,
    add_allow_module,
    input_files,
    number,
    refuse_to_write,
    seed,
    silent_about_weights,
    weights_files,
)
from caffe_tools.errors import CaffeToolsError, SolverError

if TYPE_CHECKING:
    from caffe_tools.training.training import Training


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("solver", metavar="SOLVER.prototxt")
    command.add_argument("--weights", **REPEATED, metavar="F.caffemodel", help="start from these")
    command.add_argument("--snapshot", metavar="F.solverstate", help="go on where this snapshot was taken")
    engines = ("layers", "onnx")  # training's ENGINES, held equal by a test
    text = "run the training net layer by layer, or as one exported ONNX graph (default: %(default)s)"
    command.add_argument("--engine", choices=engines, default="layers", help=text)
    count, text = number("number of iterations", least=0), "end after N iterations (default: at max_iter)"
    command.add_argument("--iterations", type=count, metavar="N", help=text)
    command.add_argument("--seed", type=seed, help="of fillers and Dropout (default: random_seed, or else 0)")
    text = "train on where NaN or infinity appears, as Caffe does (else: stop there, with the last good snapshot)"
    command.add_argument("--keep-going", action="store_true", help=text)
    add_allow_module(command)


def run(options: argparse.Namespace) -> int:
    from caffe_tools.report.tables import make_console
    from caffe_tools.report.training_log import print_event, progress_bar
    from caffe_tools.training.not_finite import NotFiniteError
    from caffe_tools.training.training import Iteration, Snapshotted

    training = _prepared(options)
    until = training.solver.max_iter
    if options.iterations is not None:
        until = training.iteration + options.iterations
    console = make_console(soft_wrap=True)
    last = Path(options.snapshot) if options.snapshot else None
    with _stopping_at_signals(training) as received, progress_bar(console, training, until) as advance:
        try:
            for event in training.run(until):
                with _heard_or_not(received):
                    print_event(console, event)
                if isinstance(event, Snapshotted):
                    last = event.path
                if isinstance(event, Iteration):
                    advance(event)
        except NotFiniteError as error:
            kept = f"the last good snapshot is {last}" if last else "there is no snapshot before it"
            print(f"caffe-layers: {error}. Try a lower base_lr; {kept}; --keep-going trains on", file=sys.stderr)
            return DISAGREES
    if received and last and training.iteration < until:
        with _heard_or_not(received):
            console.print(f"Stopped after {training.iteration} of {until} iterations. Go on with:")
            console.print(f"  caffe-layers train {_go_on(options, last, until - training.iteration)}")
        return INTERRUPTED
    console.print("Optimization Done.")
    return DONE


def _prepared(options: argparse.Namespace) -> Training:
    from caffe_tools.training.training import Training

    if options.weights and options.snapshot:
        raise CaffeToolsError("give --weights to start from, or --snapshot to go on from, not both")
    training = Training(
        options.solver,
        engine=options.engine,
        allow_modules=options.allow_module,
        seed=options.seed,
        keep_going=options.keep_going,
    )
    _check_that_data_comes_in(training)
    if options.snapshot:
        training.restore(options.snapshot)
    else:
        # the command line beats the solver; each may list several, as in Caffe
        files = weights_files(options.weights or training.solver.weights)
        _refuse_snapshots_over_inputs(training, options, files)
        with silent_about_weights():
            loaded = [training.copy_from(path) for path in files]
        account_for_weights(training.net, loaded)
    return training


def _refuse_snapshots_over_inputs(training: Training, options: argparse.Namespace, weights: list[str]) -> None:
    """CaffeToolsError where a snapshot that the run will write is one of the files that it starts from."""
    solver = training.solver
    until = solver.max_iter if options.iterations is None else options.iterations
    prefix = Path(f"{solver.snapshot_prefix}_iter_")
    written = []
    for path in prefix.parent.glob(f"{glob.escape(prefix.name)}*.*"):
        number = path.name.removeprefix(prefix.name).partition(".")[0]
        is_due = number.isdecimal() and int(number) <= until and solver.snapshot and int(number) % solver.snapshot == 0
        if path.is_file() and (is_due or (number == str(until) and solver.snapshot_after_train)):
            written.append(path)
    refuse_to_write(written, [*weights, *input_files(options)], "give another snapshot_prefix")


def _check_that_data_comes_in(training: Training) -> None:
    for name, net in training.named_nets():
        for top in net.inputs:
            layer = next(layer for layer in net.spec.layers if top in layer.tops)
            raise SolverError(
                f"{layer.place}: nothing fills its top {top!r} of the {'training' if name == 'train' else 'test'} net:"
                " put a Python data layer in its place, such as NpzDataLayer of caffe_layers"
            )


def _go_on(options: argparse.Namespace, snapshot: Path, left: int) -> str:
    words = [options.solver, "--snapshot", str(snapshot)]
    if options.engine != "layers":
        words += ["--engine", options.engine]
    if options.iterations is not None:
        words += ["--iterations", str(left)]
    if options.keep_going:
        words.append("--keep-going")
    for module in options.allow_module:
        words += ["--allow-module", module]
    return shlex.join(words)


@contextmanager
def _heard_or_not(received: list[int]) -> Iterator[None]:
    """Once a signal asks the run to end, maybe nobody reads what it prints: that must not cost its snapshot."""
    try:
        yield
    except (OSError, SystemExit):  # rich ends the program where its pipe is broken
        if not received:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _stopping_at_signals(training: Training) -> Iterator[list[int]]:
    """The first SIGINT, SIGTERM or SIGHUP ends the run after its iteration; those received.

    A second SIGINT or SIGTERM ends it at once. A terminal that closes may send SIGHUP several times, and under nohup
    none counts.
    """
    received: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: object) -> None:
        received.append(number)
        training.stop()
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if each == hangup else handler)

    for each in before:
        signal.signal(each, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
