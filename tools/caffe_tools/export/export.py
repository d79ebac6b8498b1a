"""A net as one ONNX model, for inference or for training.

Names: a blob keeps its Caffe name; of the results of in-place layers the last one has it, the ones before are
``name@1``, ``name@2``, … (a graph input keeps its plain name, and the in-place results of it are ``name@2``, …). A
learnable blob is ``layer/0``, ``layer/1``; a gradient is the name plus ``.diff``; what a forward pass leaves in a
stored blob (BatchNorm's statistics in TRAIN) is the name plus ``.after``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import CheckerPass, TopologicalSortPass

from caffe_tools.errors import ExportError, few_quoted, one_line
from caffe_tools.export.forward_graph import ForwardGraph, LiftBars, Named
from caffe_tools.export.functions import LayersAsFunctions
from caffe_tools.export.options import ExportOptions
from caffe_tools.export.training_graph import TrainingGraph
from caffe_tools.graph import onnx_file
from caffe_tools.graph.builder import OPSET, Builder
from caffe_tools.graph.passes import RemoveUnused
from caffe_tools.graph.session import IR_VERSION, newest_opset
from caffe_tools.net.keys import DATA, DIFF, IN, PARAM, PDIFF, RANDOM, TOP_DIFF, Arrays, Kind, split_key
from caffe_tools.net.net import Net
from caffe_tools.net.results import Result


@dataclass
class Exported:
    """The model, and the names that its inputs and outputs have in it, by the keys of an ``.npz``.

    inputs: ``in/<blob>``, ``random/<layer>/<i>`` (with random_inputs), ``param/<layer>/<i>`` (with parameter_inputs; a
    shared blob under its first layer) and ``top_diff/<blob>`` (for a net without a loss), where an output needs them.
    outputs: ``data/<blob>``, ``diff/<blob>``, ``pdiff/<layer>/<i>`` and ``param_after/<layer>/<i>``. There is no
    ``data/`` for a blob that is just fed, and no ``diff/`` for one that no gradient reaches or whose diff is fed.
    """

    ir_model: ir.Model
    """The model around the net's own arrays; ``model`` has a copy of them."""
    inputs: dict[str, str]
    outputs: dict[str, str]
    inner_data: dict[Result, str]
    """With all_blobs, the name of every result of every blob, though it be no output."""
    inner_diffs: dict[Result, str]
    """With all_blobs and training, those of their gradients."""

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model with the weights that the net has when this is first asked for."""
        return ir.to_proto(self.ir_model)

    def name_of(self, key: str) -> str | None:
        """The name of that output. The gradient by a copy that a Split makes is none, but has a name all the same."""
        kind, blob = split_key(key)
        return self.outputs.get(key) or (self.inner_diffs.get(Result(blob, 1)) if kind == DIFF else None)

    def feeds(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """What the model must be fed, by its own names."""
        return {name: arrays[key] for key, name in self.inputs.items()}


def export(net: Net, options: ExportOptions | None = None) -> Exported:
    """``net``, with the weights that it has now, as an ONNX model that passes onnx's checker.

    The outputs of a training model are the losses (for a net without a loss its outputs), the diffs of the learnable
    blobs and of the inputs, the stored blobs that the forward pass changes, and then the net's other outputs.

    Raises ExportError for a layer without an ONNX expression and for a blob that cannot be an output, GraphError for a
    layer without a gradient.
    """
    options = options or ExportOptions()
    _check_opset(options.opset)
    if options.fold and (options.training or options.all_blobs):
        raise ExportError("fold goes with inference: a folded layer has no blob or gradient of its own")
    op = Builder(opset=options.opset, name=net.name or "net")
    forward = ForwardGraph(net, op, options)
    inputs = IN.keyed(forward.inputs) | RANDOM.keyed(forward.random)
    if options.parameter_inputs:
        inputs |= PARAM.keyed(forward.parameters)
    blobs = list(forward.results) if options.all_blobs else forward.net_outputs()
    outputs = first = forward.computed(blobs)
    training = TrainingGraph(forward) if options.training else None
    if training:
        first = forward.computed([blob for blob, *_ in training.losses] or blobs)
    made = forward.computed(forward.results)
    if not first and made and (training or not options.blobs):
        inner = few_quoted([split_key(key)[1] for key in made][::-1])
        raise ExportError(f"the net has no outputs (its end is a Silence): name blobs with --to; it computes {inner}")
    if training:
        inputs |= TOP_DIFF.keyed(training.top_diffs)
        outputs = first | training.diffs(options.input_gradients, options.all_blobs) | forward.updates() | outputs
    outputs |= forward.computed(forward.inner_blobs(options.blobs))
    inner_data = forward.inner() if options.all_blobs else {}
    inner_diffs = training.inner if training else {}
    if not outputs:  # a net that computes nothing; a model has at least one output
        outputs = {DATA.key(blob): Named(f"{blob}@2", value) for blob, value in forward.inputs.items()}
    output_names = {key: op.output(named.value, named.name).name or "" for key, named in outputs.items()}
    for name, owner in forward.shared.items():
        if PDIFF.key(owner) in output_names:
            output_names[PDIFF.key(name)] = output_names[PDIFF.key(owner)]
    inner_names = [{key: value.name or "" for key, value in inner.items()} for inner in (inner_data, inner_diffs)]
    model = _finished(net, op, forward, options)
    needed = set(model.graph.inputs)
    input_names = {key: value.name or "" for key, value in inputs.items() if value in needed}
    there = {value.name for node in model.graph for value in node.outputs}
    inner_names = [{key: name for key, name in names.items() if name in there} for names in inner_names]
    return Exported(model, input_names, output_names, *inner_names)


def _check_opset(opset: int) -> None:
    if opset < OPSET or (opset > OPSET and opset > newest_opset()):
        raise ExportError(
            f"opset {opset} is not supported: give {OPSET} to {newest_opset()}, the newest that the installed"
            " ONNX Runtime takes"
        )


def _finished(net: Net, op: Builder, forward: ForwardGraph, options: ExportOptions) -> ir.Model:
    version = max(IR_VERSION, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", op.opset)]))
    model = ir.Model(op.graph, ir_version=version, producer_name="caffe-layers", metadata_props=_metadata(net))
    passes: list[ir.passes.PassBase] = [LiftBars(forward.bars), RemoveUnused()]
    if not options.inline:
        passes += [LayersAsFunctions(op, forward.functions), RemoveUnused()]
    ir.passes.Sequential(*passes, TopologicalSortPass())(model)
    _say_where_from(net, model)
    try:
        CheckerPass(full_check=True)(model)  # without the weights, which it leaves out
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is no valid ONNX: {one_line(error)}") from None
    return model


def _say_where_from(net: Net, model: ir.Model) -> None:
    """Every node's doc string: the layer that it belongs to, and where that stands."""
    specs = [placed.spec for placed in net.placed if placed.spec.position]
    places = {spec.name: f"{spec.place} of {spec.position}" for spec in specs}
    for node in model.graph:
        node.doc_string = places.get(node.metadata_props.get("layer", ""), "")


def _metadata(net: Net) -> dict[str, str]:
    """What a user of the model must know of the net: its name and phase, and what Caffe does to the images it reads."""
    metadata = {"caffe.name": net.name, "caffe.phase": net.phase}
    positions = [placed.spec.position for placed in net.placed if placed.spec.position]
    if positions:
        metadata["caffe.prototxt"] = os.path.basename(positions[0].source)
    transforms = {top: source.transform for top, source in net.sources.items() if source.transform}
    return metadata | Kind("caffe.transform_param").keyed(transforms)


def save(exported: Exported, path: str | os.PathLike) -> None:
    """Write the model, with its large tensors in ``path.data`` where it has 2 GB or more; whole or not at all."""
    onnx_file.save(exported.ir_model, path)
