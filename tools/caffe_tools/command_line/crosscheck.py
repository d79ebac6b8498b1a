"""Judge the loss and the gradients of a training graph from elsewhere by a loss layer."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import AGREES, DISAGREES, REPEATED, number, output, seed
from caffe_tools.errors import GraphError


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("graph", metavar="GRAPH.onnx")
    command.add_argument("--layer", required=True, metavar="CLASS", help="a loss of caffe_layers: SoftmaxLossLayer, …")
    command.add_argument("--param-str", type=str, default="", metavar="S", help="its parameters, as in a prototxt")
    text = "a tensor of the graph that is a bottom: once for the scores, then for the labels (and the weights)"
    command.add_argument("--bottom", **REPEATED, required=True, metavar="NAME", help=text)
    command.add_argument("--loss", required=True, metavar="NAME", help="the tensor that is the loss")
    text = "the tensor NAME is the gradient by OF: the scores, or what they are computed from (a weight)"
    command.add_argument("--grad", **REPEATED, metavar="NAME=OF", help=text)
    text = "the tensor INPUT carries the layer's PARAMETER, as in w=class_weight"
    command.add_argument("--param", **REPEATED, metavar="INPUT=PARAMETER", help=text)
    weight, text = number("loss weight", float), "what the gradients are multiplied with (%(default)g)"
    command.add_argument("--loss-weight", type=weight, default=1.0, metavar="W", help=text)
    command.add_argument("--inputs", metavar="F.npz", help="arrays by the graph's own input names; else they are drawn")
    command.add_argument("--seed", type=seed, default=0, help="of the drawn inputs")
    command.add_argument("--json", type=output, metavar="F", help="write the verdict as JSON")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.files import load_arrays, write_json
    from caffe_tools.referee.referee import crosscheck
    from caffe_tools.report.verdict import print_verdict

    if len(options.grad) != len({pair.partition("=")[0] for pair in options.grad}):
        raise GraphError("--grad names a tensor twice")
    verdict = crosscheck(
        options.graph,
        options.layer,
        bottoms=options.bottom,
        loss=options.loss,
        gradients=dict(_pair(text, "--grad", "NAME=OF") for text in options.grad),
        param_str=options.param_str,
        parameters=dict(_pair(text, "--param", "INPUT=PARAMETER") for text in options.param),
        loss_weight=options.loss_weight,
        inputs=load_arrays(options.inputs) if options.inputs else None,
        inputs_from=options.inputs or "",
        seed=options.seed,
    )
    if options.json:
        write_json(options.json, verdict.as_json())
    print_verdict(verdict)
    return AGREES if verdict.agrees else DISAGREES


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, separator, of = text.partition("=")
    if not separator or not name or not of:
        raise GraphError(f"{option} {text!r} is not of the form {form}")
    return name, of
