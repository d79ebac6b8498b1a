"""The command line: ``caffe-layers check | run | export | gradcheck | layers``.

Exit code 0: fine; 1: the numbers disagree; 2: bad usage or bad input, said in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from caffe_layers.layer import LayerError
from caffe_tools import catalogue, prototxt, report
from caffe_tools.check import ATOL, RTOL, Progress, check
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.export import ExportOptions, export, save
from caffe_tools.gradcheck import gradcheck, make_layer
from caffe_tools.graph import OPSET
from caffe_tools.inputs import draw_inputs, feed, load_arrays, save_arrays
from caffe_tools.net import Net
from caffe_tools.netspec import read_net

AGREES, DISAGREES, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = _print_warning
    try:
        return options.command(options)
    except (CaffeToolsError, LayerError) as error:
        print(f"caffe-layers: {_one_line(error)}", file=sys.stderr)
    except MemoryError:
        print("caffe-layers: out of memory: the net's blobs do not fit", file=sys.stderr)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"caffe-layers: {name}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("caffe-layers: interrupted", file=sys.stderr)
        return 130
    return BAD_INPUT


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _print_warning(message: Warning | str, *ignored: object) -> None:
    print(f"caffe-layers: note: {' '.join(str(message).split())}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the usage."""

    def error(self, message: str) -> None:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="caffe-layers", description="Run, export to ONNX and check Caffe nets and Python layers.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _net_command(commands, "check", run_check, "show that the net and its ONNX export give the same numbers")
    command.add_argument("--against", metavar="F.npz", help="compare both with these arrays (data/…, diff/…, pdiff/…)")
    command.add_argument("--rtol", type=_tolerance, default=RTOL, help="allowed over the largest value (%(default)g)")
    command.add_argument("--atol", type=_tolerance, default=ATOL, help="allowed besides (%(default)g)")
    command.add_argument("--json", metavar="F", help="write the comparison as JSON")
    command.add_argument("--report", metavar="F.html", help="write the printed tables as HTML")

    command = _net_command(commands, "run", run_run, "run the net layer by layer and show its outputs")
    command.add_argument("--backward", action="store_true", help="run backward too")
    command.add_argument("--save", metavar="F.npz", help="write inputs, parameters, blobs and gradients")

    command = _net_command(commands, "export", run_export, "write the net as an ONNX model")
    command.add_argument("-o", "--output", metavar="F.onnx", required=True)
    command.add_argument("--training", action="store_true", help="with the losses and the gradient of every parameter")
    command.add_argument("--input-gradients", action="store_true", help="with --training: the inputs' gradients too")
    command.add_argument("--opset", type=int, default=OPSET, help="the ONNX opset (%(default)s)")
    command.add_argument("--inline", action="store_true", help="plug-in layers as plain nodes, not as ONNX functions")
    command.add_argument("--dynamic-batch", action="store_true", help="leave the batch size open")

    command = commands.add_parser("gradcheck", help="check a Python layer's backward by central differences")
    command.set_defaults(command=run_gradcheck)
    command.add_argument("layer", metavar="MODULE:CLASS", help="such as caffe_layers:SoftmaxLossLayer")
    command.add_argument("--param-str", default="", metavar="S")
    command.add_argument("--bottom", type=_shape, action="append", required=True, metavar="SHAPE", help="such as 4x5")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", metavar="F", help="write the result as JSON")
    _allow_module(command)

    command = commands.add_parser("layers", help="list the layers, or show one with its parameters")
    command.set_defaults(command=run_layers)
    command.add_argument("name", nargs="?", metavar="NAME")
    return parser


def _net_command(commands, name: str, function, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function)
    command.add_argument("net", metavar="NET.prototxt")
    command.add_argument("--weights", metavar="F.caffemodel")
    command.add_argument("--inputs", metavar="F.npz", help="arrays in/BLOB and param/LAYER/i; the rest is drawn")
    command.add_argument("--phase", choices=("TRAIN", "TEST"), help="default: TRAIN if the net has a loss")
    command.add_argument("--level", type=int, default=0)
    command.add_argument("--stage", action="append", default=[], metavar="NAME", help="may be given several times")
    command.add_argument("--seed", type=int, default=0, help="of fillers, drawn inputs and Dropout")
    _allow_module(command)
    return command


def _allow_module(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-module", action="append", default=[], metavar="NAME",
        help="import Python layers from this module too (code from a stranger runs!)",
    )  # fmt: skip


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < np.inf:
        raise argparse.ArgumentTypeError(f"{text} is no tolerance: give a number of 0 or more")
    return value


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(dim) for dim in text.replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give dims such as 4x5") from None
    if any(dim < 1 for dim in shape):
        raise argparse.ArgumentTypeError(f"{text!r} has a dim below 1")
    return shape


# Commands -------------------------------------------------------------------------------------------------------------


def run_check(options: argparse.Namespace) -> int:
    against = load_arrays(options.against) if options.against else None
    with _progress(f"checking {options.net}") as progress:
        net = _load_net(options)
        results = check(
            net, against, options.against or "", rtol=options.rtol, atol=options.atol, progress=progress
        )
    if against is not None and not any(result.rows for result in results):
        raise NetError(f"{options.against} holds no data/…, diff/… or pdiff/… of this net's blobs")
    console = report.make_console(record=bool(options.report))
    report.print_check(console, results)
    if options.report:
        _write_text(options.report, console.export_html())
    if options.json:
        _write_text(options.json, json.dumps([result.as_json() for result in results], indent=1, default=float))
    return AGREES if all(result.agrees for result in results) else DISAGREES


def run_run(options: argparse.Namespace) -> int:
    with _progress(f"running {options.net}") as progress:
        net = _load_net(options)
        progress("forward")
        before = {key: array.copy() for key, array in _stored(net).items()}
        net.forward()
        if options.backward:
            progress("backward")
            net.backward()
    report.print_run(report.make_console(), net, options.backward)
    if options.save:
        save_arrays(options.save, before | _computed(net, options.backward))
    return AGREES


def run_export(options: argparse.Namespace) -> int:
    if options.input_gradients and not options.training:
        raise CaffeToolsError("--input-gradients goes with --training")
    with _progress(f"exporting {options.net}") as progress:
        net = _load_net(options, default_phase="TRAIN" if options.training else "TEST")
        progress("building the graph")
        exported = export(
            net,
            ExportOptions(
                training=options.training,
                input_gradients=options.input_gradients,
                dynamic_batch=options.dynamic_batch,
                inline=options.inline,
                opset=options.opset,
            ),
        )
        progress("writing")
        save(exported.model, options.output)
    report.print_export(report.make_console(), exported.model, options.output)
    return AGREES


def run_gradcheck(options: argparse.Namespace) -> int:
    module, separator, name = options.layer.partition(":")
    if not separator or not module or not name:
        raise CaffeToolsError(f"{options.layer!r} is no layer: give MODULE:CLASS, as caffe_layers:SoftmaxLossLayer")
    layer = make_layer(module, name, options.param_str, options.allow_module)
    rows = gradcheck(layer, options.bottom, seed=options.seed)
    if not rows:
        raise CaffeToolsError(f"{name} has no bottom with a gradient")
    report.print_gradcheck(report.make_console(), name, rows)
    if options.json:
        _write_text(options.json, json.dumps([row.as_json() for row in rows], indent=1))
    return AGREES if all(row.agrees for row in rows) else DISAGREES


def run_layers(options: argparse.Namespace) -> int:
    console = report.make_console()
    if options.name is None:
        catalogue.print_all(console)
    else:
        catalogue.print_one(console, options.name)
    return AGREES


# What the commands share ----------------------------------------------------------------------------------------------


def _load_net(options: argparse.Namespace, default_phase: str | None = None) -> Net:
    """The net with its weights and inputs; without ``--phase`` the phase that the net is made for."""
    keywords = {
        "level": options.level,
        "stages": options.stage,
        "allow_modules": options.allow_module,
        "seed": options.seed,
    }
    phase = options.phase or default_phase or _natural_phase(options.net)
    arrays = load_arrays(options.inputs) if options.inputs else {}
    shapes = {key.removeprefix("in/"): array.shape for key, array in arrays.items() if key.startswith("in/")}
    net = Net(options.net, phase=phase, weights=options.weights, input_shapes=shapes, **keywords)
    fed = feed(net, arrays, options.inputs or "")
    draw_inputs(net, fed, options.seed)
    for key, array in arrays.items():
        name = key.removeprefix("top_diff/")
        if key.startswith("top_diff/") and name in net.outputs and net.blobs[name].shape == array.shape:
            net.blobs[name].diff[...] = array
    return net


def _natural_phase(path: str) -> str:
    """TRAIN where that phase has a loss (a layer type with Loss in its name, or a loss_weight), else TEST."""
    try:
        layers = read_net(prototxt.load(path), "TRAIN").layers
    except NetError:
        return "TEST"  # whatever is wrong with the net is said when it is built
    return "TRAIN" if any("Loss" in layer.type or any(layer.loss_weights) for layer in layers) else "TEST"


def _stored(net: Net) -> dict[str, np.ndarray]:
    arrays = {f"in/{name}": net.blobs[name].data for name in net.inputs}
    return arrays | {f"param/{n}/{i}": blob.data for n, blobs in net.params.items() for i, blob in enumerate(blobs)}


def _computed(net: Net, backward: bool) -> dict[str, np.ndarray]:
    splits = {top for spec in net.spec.layers if spec.type == "Split" for top in spec.tops}
    blobs = {name: blob for name, blob in net.blobs.items() if name not in splits}
    arrays = {f"data/{name}": blob.data for name, blob in blobs.items()}
    if backward:
        arrays |= {f"diff/{name}": blob.diff for name, blob in blobs.items()}
        arrays |= {f"pdiff/{n}/{i}": blob.diff for n, all_ in net.params.items() for i, blob in enumerate(all_)}
    return arrays


def _write_text(path: str, text: str) -> None:
    target = Path(path)
    if not target.parent.is_dir():
        raise CaffeToolsError(f"cannot write {path}: there is no folder {target.parent}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """A line that says what is being done, on a terminal alone."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")
