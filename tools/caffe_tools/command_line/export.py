"""Write the net as an ONNX model."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING

from caffe_tools.command_line.shared import DONE, REPEATED, add_net_options, load_net, number, output, progress
from caffe_tools.errors import CaffeToolsError, few_quoted

if TYPE_CHECKING:
    from caffe_tools.net.net import Net


def add(command: argparse.ArgumentParser) -> None:
    add_net_options(command)
    command.add_argument("-o", "--output", type=output, metavar="F.onnx", required=True)
    text = "make this inner blob an output too; may be given several times"
    command.add_argument("--blob", **REPEATED, dest="blobs", metavar="NAME", help=text)
    text = (
        "end the net at this blob: it is the output, and what it does not need is left out; may be given several times"
    )
    command.add_argument("--to", **REPEATED, metavar="NAME", help=text)
    command.add_argument("--training", action="store_true", help="with the losses and the gradient of every parameter")
    command.add_argument("--input-gradients", action="store_true", help="with --training: the inputs' gradients too")
    # graph/builder.py's OPSET, held equal by a test
    command.add_argument("--opset", type=number("opset"), default=18, help="the ONNX opset (%(default)s)")
    command.add_argument("--inline", action="store_true", help="plug-in layers as plain nodes, not as ONNX functions")
    command.add_argument("--dynamic-batch", action="store_true", help="leave the batch size open")
    command.add_argument("--dynamic-size", action="store_true", help="leave the image size open")
    command.add_argument("--fold", action="store_true", help="BatchNorm and Scale go into the layer before them")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.export.export import ExportOptions, export, save
    from caffe_tools.report.tables import print_export

    if options.input_gradients and not options.training:
        raise CaffeToolsError("--input-gradients goes with --training")
    with progress(f"exporting {options.net}") as say:
        net = load_net(options, default_phase="TRAIN" if options.training else "TEST")
        say("building the graph")
        given = {field.name for field in fields(ExportOptions)} & vars(options).keys()
        exported = export(net, ExportOptions(**{name: getattr(options, name) for name in given}))
        say("writing")
        save(exported, options.output)
    if net.phase == "TEST":
        _note_missing_weights(net, options)
    if not options.dynamic_batch:
        _note_fixed_batch(net)
    print_export(exported.ir_model, options.output)
    return DONE


def _note_missing_weights(net: Net, options: argparse.Namespace) -> None:
    if net.at_fillers and not options.weights:
        which = few_quoted(net.at_fillers) if net.given_weights else "the model"
        warnings.warn(f"no --weights are given: the weights of {which} are what the fillers drew", stacklevel=2)


def _note_fixed_batch(net: Net) -> None:
    from caffe_tools.export.forward_graph import first_dims

    batch, regions = first_dims(net)
    for what, size in (("batch size", batch), ("number of regions", regions)):
        if size is not None and size > 1:
            warnings.warn(f"the {what} is fixed at {size}; --dynamic-batch leaves it open", stacklevel=2)
            return
