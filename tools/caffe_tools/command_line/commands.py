"""What the commands do: each takes the parsed options, prints, and returns its exit code."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np
from rich.console import Console

from caffe_tools import prototxt
from caffe_tools.check import peers
from caffe_tools.check.check import Peer, Progress, check
from caffe_tools.check.gradcheck import gradcheck, make_layer
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.export.export import ExportOptions, export, save
from caffe_tools.files import load_arrays, save_arrays, write_json, write_text
from caffe_tools.net.inputs import draw_inputs, feed, what_comes_out, what_goes_in
from caffe_tools.net.keys import IN
from caffe_tools.net.net import Net
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import read_net
from caffe_tools.prototxt.upgrade import upgrade
from caffe_tools.report import catalogue
from caffe_tools.report import tables as report

AGREES, DISAGREES, BAD_INPUT = 0, 1, 2
"""The exit codes."""


def run_check(options: argparse.Namespace) -> int:
    against = _reference(options)
    with _progress(f"checking {options.net}") as progress:
        net = _load_net(options)
        results = check(net, against, options.against or "", rtol=options.rtol, atol=options.atol, progress=progress)
    if options.report:
        write_text(options.report, report.check_as_html(results))
    if options.json:
        write_json(options.json, [result.as_json() for result in results])
    report.print_check(report.make_console(), results)
    return AGREES if all(result.agrees for result in results) else DISAGREES


def _reference(options: argparse.Namespace) -> Mapping[str, np.ndarray] | Peer | None:
    """What ``--against`` names: arrays, or a peer that runs the net."""
    if options.caffe_python and options.against != "caffe":
        raise CaffeToolsError("--caffe-python goes with --against caffe")
    if options.against == "caffe":
        return partial(peers.run_caffe, python=options.caffe_python or sys.executable)
    if options.against == "opencv":
        return peers.run_opencv
    return load_arrays(options.against) if options.against else None


def run_run(options: argparse.Namespace) -> int:
    with _progress(f"running {options.net}") as progress:
        net = _load_net(options)
        if options.backward and not net.runs_backward:
            raise NetError("nothing runs backward in this net: no learnable blob lies under a loss")
        progress("forward")
        arrays = {key: array.copy() for key, array in what_goes_in(net, options.backward).items()}
        net.forward()
        if options.backward:
            progress("backward")
            net.backward()
    if options.save:
        save_arrays(options.save, arrays | what_comes_out(net, options.backward))
    report.print_run(report.make_console(), net, options.backward)
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
                dynamic_size=options.dynamic_size,
                fold=options.fold,
                inline=options.inline,
                blobs=options.blob,
                opset=options.opset,
            ),
        )
        progress("writing")
        save(exported, options.output)
    report.print_export(report.make_console(), exported.ir_model, options.output)
    return AGREES


def run_gradcheck(options: argparse.Namespace) -> int:
    module, separator, name = options.layer.partition(":")
    if not separator or not module or not name:
        raise CaffeToolsError(f"{options.layer!r} is no layer: give MODULE:CLASS, as caffe_layers:SoftmaxLossLayer")
    layer = make_layer(module, name, options.param_str, options.allow_module)
    rows = gradcheck(layer, options.bottom, seed=options.seed)
    if not rows:
        raise CaffeToolsError(f"{name} has no bottom with a gradient")
    if options.json:
        write_json(options.json, [row.as_json() for row in rows])
    report.print_gradcheck(report.make_console(), name, rows)
    return AGREES if all(row.agrees for row in rows) else DISAGREES


def run_upgrade(options: argparse.Namespace) -> int:
    text = prototxt.to_text(upgrade(prototxt.load(options.net)))
    if options.output:
        write_text(options.output, text)
    else:
        print(text, end="")
    return AGREES


def run_layers(options: argparse.Namespace) -> int:
    console = report.make_console()
    if options.name is None:
        catalogue.print_all(console)
    else:
        catalogue.print_one(console, options.name)
    return AGREES


# What they share ------------------------------------------------------------------------------------------------------


def _load_net(options: argparse.Namespace, default_phase: str | None = None) -> Net:
    """The net with its weights and inputs; without ``--phase`` the phase that the net is made for."""
    state = {"level": options.level, "stages": options.stage}
    message = prototxt.load(options.net)
    _refuse_solver(message, options.net)
    phase = options.phase or default_phase or _natural_phase(message, state)
    arrays = load_arrays(options.inputs) if options.inputs else {}
    net = Net(
        options.net,
        phase,
        weights=options.weights,
        allow_modules=options.allow_module,
        input_shapes={name: array.shape for name, array in IN.of(arrays).items()},
        seed=options.seed,
        **state,
    )
    fed = feed(net, arrays, options.inputs or "")
    draw_inputs(net, fed, options.seed)
    return net


def _refuse_solver(message: Message, path: str) -> None:
    solver_fields = [name for name in ("net", "train_net", "base_lr", "max_iter") if name in message]
    if solver_fields and "layer" not in message and "layers" not in message:
        named = next((message.first(name) for name in ("net", "train_net") if name in message), None)
        hint = f": give {named}, the net that it names" if named else ""
        raise NetError(f"{path} is a solver (it has {', '.join(solver_fields)}), not a net{hint}")


def _natural_phase(message: Message, state: dict) -> str:
    """TRAIN where that phase has a loss (a layer type with Loss in its name, or a loss_weight), else TEST."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said of the net is said when it is built
            layers = read_net(message, "TRAIN", **state).layers
    except NetError:
        return "TEST"
    return "TRAIN" if any("Loss" in layer.type or any(layer.loss_weights) for layer in layers) else "TEST"


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """A line that says what is being done, on a terminal alone."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")
