"""The command line: ``caffe-layers COMMAND …``; every file beside this one and ``shared.py`` is a command.

A command is named as its file; the first line of its docstring is its help. ``add(command)`` gives its parser the
options, and ``run(options)`` does it and returns the exit code. At its top a command's file imports only what is light,
since ``--help`` and a wrong option are answered by all of them together; ``run`` imports what it computes with.

Exit code 0: fine; 1: the numbers disagree; 2: bad usage or bad input, said in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from caffe_tools import command_line
from caffe_tools.command_line.shared import BAD_INPUT, not_empty, refuse_overwriting
from caffe_tools.errors import CaffeToolsError, one_line, place_in_user_code

MOST_FAULTS = 30
"""How many are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    _open_closed_streams()
    options = make_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(f"note: {message}")
            refuse_overwriting(options)
            code = options.command(options)
            sys.stdout.flush()
            return code
    except MemoryError:
        complaint = "out of memory: the net's blobs do not fit"
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        complaint = f"{error.filename or 'cannot write the output'}: {error.strerror or error}"
    except SystemExit as end:
        complaint = f"the code of a Python layer ends the program: {place_in_user_code(end) or end}"
    except _bad_input() as error:
        _complain(getattr(error, "faults", [str(error)]))
        return BAD_INPUT
    _say(complaint)
    return BAD_INPUT


def _bad_input() -> tuple[type[Exception], ...]:
    """The errors that name what the user can put right (asked for when one is raised: caffe_layers brings numpy)."""
    from caffe_layers.contract import LayerError

    return CaffeToolsError, LayerError


def _complain(faults: Sequence[str]) -> None:
    """One fault is one line; of several the first line says how many, and each has its own."""
    if len(faults) > 1:
        _say(f"{len(faults)} things are wrong:")
    for fault in faults[:MOST_FAULTS]:
        _say(fault)
    if len(faults) > MOST_FAULTS:
        _say(f"and {len(faults) - MOST_FAULTS} more")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it, or its disk is full: the exit code stays
        print(f"caffe-layers: {one_line(text)}", file=sys.stderr, flush=True)


def _open_closed_streams() -> None:
    """A program that is started with its standard output or error closed (``>&-``) writes into the void."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it stays open to the end


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line, with every command's options."""
    text = "Run, export to ONNX and check Caffe nets and Python layers."
    parser = _Parser(prog="caffe-layers", description=text, allow_abbrev=False)
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for file in pkgutil.iter_modules(command_line.__path__):
        if file.name in ("cli", "shared"):
            continue
        module = importlib.import_module(f"{command_line.__name__}.{file.name}")
        text = (module.__doc__ or "").partition("\n")[0]
        command = subparsers.add_parser(file.name, help=text, description=text, allow_abbrev=False)
        command.register("type", None, not_empty)
        command.set_defaults(command=module.run)
        module.add(command)
    return parser
