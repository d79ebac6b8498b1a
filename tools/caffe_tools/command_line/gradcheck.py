"""Check a Python layer's backward by central differences."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import AGREES, DISAGREES, REPEATED, add_allow_module, number, output, seed, shape
from caffe_tools.errors import CaffeToolsError


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("layer", metavar="MODULE:CLASS", help="such as caffe_layers:SoftmaxLossLayer")
    command.add_argument("--param-str", type=str, default="", metavar="S")
    command.add_argument("--bottom", type=shape, **REPEATED, required=True, metavar="SHAPE", help="such as 4x5")
    text = "bottom INDEX holds labels, 0 to CLASSES - 1, and gets no gradient; may be given several times"
    command.add_argument("--label", type=_label, **REPEATED, metavar="INDEX=CLASSES", help=text)
    text = "bottom INDEX gets no gradient, as targets and weights do; may be given several times"
    command.add_argument("--no-gradient", type=number("bottom", least=0), **REPEATED, metavar="INDEX", help=text)
    text = "how many tops the layer has; else it is found by trying"
    command.add_argument("--top", type=number("number of tops", least=1), metavar="N", help=text)
    command.add_argument("--seed", type=seed, default=0, help="of the drawn bottoms and diffs")
    command.add_argument("--json", type=output, metavar="F", help="write the result as JSON")
    add_allow_module(command)


def run(options: argparse.Namespace) -> int:
    from caffe_tools.check.gradcheck import gradcheck, make_layer
    from caffe_tools.files import write_json
    from caffe_tools.report.gradcheck import print_gradcheck

    module, separator, name = options.layer.partition(":")
    if not separator or not module or not name:
        raise CaffeToolsError(f"{options.layer!r} is no layer: give MODULE:CLASS, as caffe_layers:SoftmaxLossLayer")
    layer = make_layer(module, name, options.param_str, options.allow_module)
    if len(options.label) != len(dict(options.label)):
        raise CaffeToolsError("--label names a bottom twice")
    rows = gradcheck(
        layer,
        options.bottom,
        seed=options.seed,
        labels=dict(options.label),
        without_gradient=options.no_gradient,
        tops=options.top,
    )
    if not rows:
        raise CaffeToolsError(f"{name} has no bottom with a gradient")
    if options.json:
        write_json(options.json, [row.as_json() for row in rows])
    print_gradcheck(name, rows)
    return AGREES if all(row.agrees for row in rows) else DISAGREES


def _label(text: str) -> tuple[int, int]:
    """The type of --label."""
    index, separator, classes = text.partition("=")
    if not separator or not index.strip().isdecimal() or not classes.strip().isdecimal() or int(classes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form INDEX=CLASSES: give one such as 1=10")
    return int(index), int(classes)
