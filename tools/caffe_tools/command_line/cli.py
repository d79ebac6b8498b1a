"""The command line: ``caffe-layers check | run | export | gradcheck | crosscheck | train | upgrade | layers``.

Exit code 0: fine; 1: the numbers disagree; 2: bad usage or bad input, said in one line.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import numpy as np

from caffe_layers.layer import LayerError
from caffe_tools.check.compare import ATOL, RTOL
from caffe_tools.command_line import commands
from caffe_tools.command_line.commands import BAD_INPUT
from caffe_tools.command_line.crosscheck import add_crosscheck_command
from caffe_tools.command_line.train import add_train_command
from caffe_tools.errors import CaffeToolsError, one_line
from caffe_tools.graph.builder import OPSET


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            code = options.command(options)
            sys.stdout.flush()
            return code
    except (CaffeToolsError, LayerError) as error:
        print(f"caffe-layers: {one_line(error)}", file=sys.stderr)
    except MemoryError:
        print("caffe-layers: out of memory: the net's blobs do not fit", file=sys.stderr)
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"caffe-layers: {name}{error.strerror or error}", file=sys.stderr)
    except SystemExit as end:
        print(f"caffe-layers: the code of a Python layer ends the program: {one_line(end)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("caffe-layers: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return BAD_INPUT


def _print_warning(message: Warning | str, *ignored: object) -> None:
    print(f"caffe-layers: note: {one_line(message)}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the usage."""

    def error(self, message: str) -> None:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="caffe-layers", description="Run, export to ONNX and check Caffe nets and Python layers.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _net_command(
        subparsers, "check", commands.run_check, "show that the net and its ONNX export give the same numbers"
    )
    command.add_argument(
        "--against",
        metavar="caffe|opencv|F.npz",
        help="compare both with a real Caffe, OpenCV before 5, or arrays (data/…, diff/…, pdiff/…)",
    )
    command.add_argument("--caffe-python", metavar="EXE", help="the Python that has the real Caffe (default: this one)")
    command.add_argument("--rtol", type=_tolerance, default=RTOL, help="allowed over the largest value (%(default)g)")
    command.add_argument("--atol", type=_tolerance, default=ATOL, help="allowed besides (%(default)g)")
    command.add_argument("--json", metavar="F", help="write the comparison as JSON")
    command.add_argument("--report", metavar="F.html", help="write the printed tables as HTML")

    command = _net_command(subparsers, "run", commands.run_run, "run the net layer by layer and show its outputs")
    command.add_argument("--backward", action="store_true", help="run backward too")
    command.add_argument("--save", metavar="F.npz", help="write inputs, parameters, blobs and gradients")

    command = _net_command(subparsers, "export", commands.run_export, "write the net as an ONNX model")
    command.add_argument("-o", "--output", metavar="F.onnx", required=True)
    command.add_argument(
        "--blob",
        action="append",
        default=[],
        metavar="NAME",
        help="make this inner blob an output too; may be given several times",
    )
    command.add_argument("--training", action="store_true", help="with the losses and the gradient of every parameter")
    command.add_argument("--input-gradients", action="store_true", help="with --training: the inputs' gradients too")
    command.add_argument("--opset", type=int, default=OPSET, help="the ONNX opset (%(default)s)")
    command.add_argument("--inline", action="store_true", help="plug-in layers as plain nodes, not as ONNX functions")
    command.add_argument("--dynamic-batch", action="store_true", help="leave the batch size open")
    command.add_argument("--dynamic-size", action="store_true", help="leave the image size open")
    command.add_argument("--fold", action="store_true", help="BatchNorm and Scale go into the layer before them")

    command = subparsers.add_parser("gradcheck", help="check a Python layer's backward by central differences")
    command.set_defaults(command=commands.run_gradcheck)
    command.add_argument("layer", metavar="MODULE:CLASS", help="such as caffe_layers:SoftmaxLossLayer")
    command.add_argument("--param-str", default="", metavar="S")
    command.add_argument("--bottom", type=_shape, action="append", required=True, metavar="SHAPE", help="such as 4x5")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--json", metavar="F", help="write the result as JSON")
    _allow_module(command)

    add_train_command(subparsers)
    add_crosscheck_command(subparsers)

    command = subparsers.add_parser("upgrade", help="write an old prototxt in today's form")
    command.set_defaults(command=commands.run_upgrade)
    command.add_argument("net", metavar="OLD.prototxt")
    command.add_argument("-o", "--output", metavar="NEW.prototxt", help="default: standard output")

    command = subparsers.add_parser("layers", help="list the layers, or show one with its parameters")
    command.set_defaults(command=commands.run_layers)
    command.add_argument("name", nargs="?", metavar="NAME")
    return parser


def _net_command(subparsers, name: str, function, text: str) -> argparse.ArgumentParser:
    command = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function)
    command.add_argument("net", metavar="NET.prototxt")
    command.add_argument("--weights", metavar="F.caffemodel")
    command.add_argument("--inputs", metavar="F.npz", help="arrays in/BLOB and param/LAYER/i; the rest is drawn")
    command.add_argument("--phase", choices=("TRAIN", "TEST"), help="default: TRAIN if the net has a loss")
    command.add_argument("--level", type=int, default=0)
    command.add_argument("--stage", action="append", default=[], metavar="NAME", help="may be given several times")
    command.add_argument("--seed", type=_seed, default=0, help="of fillers, drawn inputs and Dropout")
    _allow_module(command)
    return command


def _allow_module(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-module",
        action="append",
        default=[],
        metavar="NAME",
        help="import Python layers from this module too (code from a stranger runs!)",
    )


def _tolerance(text: str) -> float:
    return _not_negative(text, float, "no tolerance: give a number of 0 or more")


def _seed(text: str) -> int:
    return _not_negative(text, int, "no seed: give a whole number of 0 or more")


def _not_negative(text: str, kind: type, complaint: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < np.inf:
        raise argparse.ArgumentTypeError(f"{text} is {complaint}")
    return value


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(dim) for dim in text.replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give dims such as 4x5") from None
    if any(dim < 1 for dim in shape):
        raise argparse.ArgumentTypeError(f"{text!r} has a dim below 1")
    return shape
