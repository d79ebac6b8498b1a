"""A net as one ONNX model, for inference or for training.

Names: a blob keeps its Caffe name; of the results of in-place layers the last one has it, the ones before are
``name@1``, ``name@2``, … (a graph input keeps its plain name, and the in-place results of it are ``name@2``, …). A
learnable blob is ``layer/0``, ``layer/1``; a gradient is the name plus ``.diff``; what a forward pass leaves in a
stored blob (BatchNorm's statistics in TRAIN) is the name plus ``.after``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
import onnx_ir as ir

from caffe_tools.errors import ExportError, one_line
from caffe_tools.export.forward_graph import ForwardGraph, Named
from caffe_tools.export.functions import LayerFunction, as_functions
from caffe_tools.export.options import ExportOptions
from caffe_tools.export.training_graph import TrainingGraph
from caffe_tools.graph import onnx_file
from caffe_tools.graph.builder import OPSET, Builder
from caffe_tools.graph.session import IR_VERSION, newest_opset
from caffe_tools.net.net import Net
from caffe_tools.net.source_layer import SourceLayer


@dataclass
class Exported:
    """The model, and the names that its inputs and outputs have in it, by the keys of an ``.npz``.

    inputs: ``in/<blob>``, ``random/<layer>`` (with random_inputs), ``param/<layer>/<i>`` (with parameter_inputs; a
    shared blob under its first layer) and ``top_diff/<blob>`` (for a net without a loss).
    Those that no output needs are no inputs of the model.
    outputs: ``data/<blob>``, ``diff/<blob>``, ``pdiff/<layer>/<i>`` and ``param_after/<layer>/<i>``. There is no
    ``data/`` for a blob that is just fed, and no ``diff/`` for one that no gradient reaches or whose diff is fed.
    """

    graph: ir.Model
    """The model around the net's own arrays; ``model`` has a copy of them."""
    inputs: dict[str, str]
    outputs: dict[str, str]

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model with the weights that the net has when this is first asked for."""
        return ir.to_proto(self.graph)


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
    inputs = {f"in/{blob}": value for blob, value in forward.inputs.items()}
    inputs |= {f"random/{layer}": value for layer, value in forward.random.items()}
    if options.parameter_inputs:
        inputs |= {f"param/{name}": value for name, value in forward.parameters.items()}
    blobs = list(forward.results) if options.all_blobs else forward.net_outputs()
    outputs = forward.computed(blobs)
    if options.training:
        training = TrainingGraph(forward)
        inputs |= {f"top_diff/{blob}": value for blob, value in training.top_diffs.items()}
        first = forward.computed([blob for blob, *_ in training.losses] or blobs)
        outputs = first | training.diffs(options.input_gradients, options.all_blobs) | forward.updates() | outputs
    outputs |= forward.computed(forward.inner_blobs(options.blobs))
    if not outputs:  # a model has at least one
        outputs = {f"data/{blob}": Named(f"{blob}@2", value) for blob, value in forward.inputs.items()}
    output_names = {key: op.output(named.value, named.name).name for key, named in outputs.items()}
    for name, owner in forward.shared.items():
        if f"pdiff/{owner}" in output_names:
            output_names[f"pdiff/{name}"] = output_names[f"pdiff/{owner}"]
    forward.lift_bars()
    input_names = {key: value.name for key, value in inputs.items()}
    op.remove_unused()
    return Exported(_model(net, op, {} if options.inline else forward.functions), input_names, output_names)


def _check_opset(opset: int) -> None:
    if opset < OPSET or (opset > OPSET and opset > newest_opset()):
        raise ExportError(
            f"opset {opset} is not supported: give {OPSET} to {newest_opset()}, the newest that the installed"
            " ONNX Runtime takes"
        )


def _model(net: Net, op: Builder, layers: Mapping[str, LayerFunction]) -> ir.Model:
    _say_where_from(net, op)
    functions = as_functions(op, layers)
    op.graph.sort()
    version = max(IR_VERSION, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", op.opset)]))
    model = ir.Model(op.graph, ir_version=version, functions=functions, producer_name="caffe-layers")
    model.metadata_props.update(_metadata(net))
    try:
        onnx_file.check(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is no valid ONNX: {one_line(error)}") from None
    return model


def _say_where_from(net: Net, op: Builder) -> None:
    """Every node's doc string: the layer that it belongs to, and where that stands."""
    places = {spec.name: f"{spec.place} of {spec.position}" for spec in net.spec.layers if spec.position}
    for node in op.graph:
        node.doc_string = places.get(node.metadata_props.get("layer", ""), "")


def _metadata(net: Net) -> dict[str, str]:
    """What a user of the model must know of the net: its name and phase, and what Caffe does to the images it reads."""
    metadata = {"caffe.name": net.name, "caffe.phase": net.phase}
    sources = {spec.position.source for spec in net.spec.layers if spec.position}
    if sources:
        metadata["caffe.prototxt"] = os.path.basename(sources.pop())
    for spec, layer in zip(net.spec.layers, net.layers, strict=True):
        if isinstance(layer, SourceLayer):
            for top, source in zip(spec.tops, layer.sources, strict=True):
                if source.transform:
                    metadata[f"caffe.transform_param/{top}"] = source.transform
    return metadata


def save(exported: Exported, path: str | os.PathLike) -> None:
    """Write the model, with its large tensors in ``path.data`` where it has 2 GB or more; whole or not at all."""
    onnx_file.save(exported.graph, path)
