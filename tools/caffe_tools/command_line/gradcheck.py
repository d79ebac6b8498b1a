"""Check a Python layer's backward by central differences."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import AGREES, DISAGREES, REPEATED, add_allow_module, output, seed, shape
from caffe_tools.errors import CaffeToolsError


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("layer", metavar="MODULE:CLASS", help="such as caffe_layers:SoftmaxLossLayer")
    command.add_argument("--param-str", type=str, default="", metavar="S")
    command.add_argument("--bottom", type=shape, **REPEATED, required=True, metavar="SHAPE", help="such as 4x5")
    command.add_argument("--seed", type=seed, default=0)
    command.add_argument("--json", type=output, metavar="F", help="write the result as JSON")
    add_allow_module(command)


def run(options: argparse.Namespace) -> int:
    from caffe_tools.check.gradcheck import gradcheck, make_layer
    from caffe_tools.files import write_json
    from caffe_tools.report.tables import print_gradcheck

    module, separator, name = options.layer.partition(":")
    if not separator or not module or not name:
        raise CaffeToolsError(f"{options.layer!r} is no layer: give MODULE:CLASS, as caffe_layers:SoftmaxLossLayer")
    layer = make_layer(module, name, options.param_str, options.allow_module)
    rows = gradcheck(layer, options.bottom, seed=options.seed)
    if not rows:
        raise CaffeToolsError(f"{name} has no bottom with a gradient")
    if options.json:
        write_json(options.json, [row.as_json() for row in rows])
    print_gradcheck(name, rows)
    return AGREES if all(row.agrees for row in rows) else DISAGREES
