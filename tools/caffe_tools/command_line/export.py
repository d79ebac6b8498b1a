"""Write the net as an ONNX model."""

from __future__ import annotations

import argparse
from dataclasses import fields

from caffe_tools.command_line.shared import DONE, REPEATED, add_net_options, load_net, number, output, progress
from caffe_tools.errors import CaffeToolsError


def add(command: argparse.ArgumentParser) -> None:
    add_net_options(command)
    command.add_argument("-o", "--output", type=output, metavar="F.onnx", required=True)
    text = "make this inner blob an output too; may be given several times"
    command.add_argument("--blob", **REPEATED, dest="blobs", metavar="NAME", help=text)
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
    print_export(exported.ir_model, options.output)
    return DONE
