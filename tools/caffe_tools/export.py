"""A net as one ONNX model, for inference or for training.

Names: a blob keeps its Caffe name; of the results of in-place layers the last one has it, the ones before are
``name@1``, ``name@2``, … (a graph input keeps its plain name, and the last in-place result of it is then numbered
too). A learnable blob is ``layer/0``, ``layer/1``; a gradient is the name plus ``.diff``; what a forward pass leaves in
a stored blob (BatchNorm's statistics in TRAIN) is the name plus ``.after``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from caffe_tools import standard
from caffe_tools.errors import ExportError
from caffe_tools.fields import Values
from caffe_tools.functions import LayerFunction, as_functions
from caffe_tools.gradient import gradients
from caffe_tools.graph import OPSET, Builder, Dim
from caffe_tools.net import Net
from caffe_tools.netspec import LayerSpec
from caffe_tools.python_layer import PythonLayer
from caffe_tools.session import IR_VERSION
from caffe_tools.standard_layer import SourceLayer

BATCH = "batch"
"""The name of the symbolic batch dim."""


@dataclass
class ExportOptions:
    """What ``export`` writes.

    training: the losses and the diff of every learnable blob, besides the forward pass.
    input_gradients: with training, the diffs of the inputs too.
    dynamic_batch: the first dim of the inputs that share it is the symbolic dim ``batch``.
    inline: plug-in layers are plain nodes, not ONNX functions.
    all_blobs: every blob is an output, and with training its diff (what ``check`` compares).
    random_inputs: the random numbers of Dropout are inputs ``layer/random0``, … instead of being drawn by the graph.
    """

    training: bool = False
    input_gradients: bool = False
    dynamic_batch: bool = False
    inline: bool = False
    all_blobs: bool = False
    random_inputs: bool = False
    opset: int = OPSET


@dataclass
class Exported:
    """The model, and where the net's blobs went: for each blob the names of its results in order, an in-place layer
    adding one each; a blob that is another's alias has the other's name."""

    model: onnx.ModelProto
    results: dict[str, list[str]] = field(default_factory=dict)


def export(net: Net, options: ExportOptions | None = None) -> Exported:
    """``net``, with the weights that it has now, as an ONNX model that passes onnx's checker.

    Raises ExportError for a layer without an ONNX expression, GraphError for one without a gradient.
    """
    return _Export(net, options or ExportOptions()).run()


def save(model: onnx.ModelProto, path: str | os.PathLike) -> None:
    """Write the model; nothing is left at ``path`` if that fails."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: there is no folder {path.parent}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        onnx.save_model(model, temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Export:
    """One export under way. It is the host of the standard layers that it builds (``standard.registry.Host``)."""

    def __init__(self, net: Net, options: ExportOptions) -> None:
        self.net = net
        self.options = options
        self.op = Builder(opset=options.opset, name=net.name or "net")
        self.current: dict[str, ir.Value] = {}
        self.results: dict[str, list[ir.Value]] = {}
        self.parameters: dict[int, ir.Value] = {}
        self.parameter_names: dict[str, int] = {}
        self.updates: dict[str, ir.Value] = {}
        self.functions: dict[str, LayerFunction] = {}
        self.batch = self._batch_size() if options.dynamic_batch else None
        self._index = 0

    def run(self) -> Exported:
        for index, spec in enumerate(self.net.spec.layers):
            self._index = index
            self._add_layer(spec)
        self._name_results()
        outputs = self._output_values()
        if self.options.training:
            outputs |= self._gradient_values()
        for name, value in outputs.items():
            self.op.output(value, name)
        names = {blob: [value.name for value in values] for blob, values in self.results.items()}
        self.op.remove_unused()
        functions = [] if self.options.inline else as_functions(self.op, self.functions)
        self.op.graph.sort()
        model = ir.Model(self.op.graph, ir_version=IR_VERSION, functions=functions, producer_name="caffe-layers")
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        return Exported(proto, names)

    # Forward --------------------------------------------------------------------------------------------------------

    def _add_layer(self, spec: LayerSpec) -> None:
        layer = self.net.layers[self._index]
        bottoms = [self._bottom(spec, position) for position in range(len(spec.bottoms))]
        if isinstance(layer, SourceLayer):
            tops = self._inputs(spec)
        elif isinstance(layer, PythonLayer):
            tops = self._python_layer(spec, layer, bottoms)
        else:
            described = standard.Layer(spec, layer.kind, self, layer.layer.directory)
            tops = standard.build(self.op, described, bottoms)
        for name, value in zip(spec.tops, tops, strict=True):
            self.current[name] = value
            results = self.results.setdefault(name, [])
            if not any(value is earlier for earlier in results):
                results.append(value)

    def _bottom(self, spec: LayerSpec, position: int) -> ir.Value:
        """The bottom's value; behind ``propagate_down: false`` one that no gradient passes."""
        value = self.current[spec.bottoms[position]]
        if not spec.propagate_down or spec.propagate_down[position] or not self.options.training:
            return value
        with self.op.layer(spec.name):
            barred = self.op.Identity(value)
        self.op.define_gradient([barred], [value], lambda diff: [None])
        return barred

    def _inputs(self, spec: LayerSpec) -> list[ir.Value]:
        return [self.op.input(top, self._dims(self.net.blobs[top].shape)) for top in spec.tops]

    def _dims(self, shape: tuple[int, ...]) -> tuple[Dim, ...]:
        return (BATCH, *shape[1:]) if shape and shape[0] == self.batch else shape

    def _batch_size(self) -> int | None:
        """The first dim of the first blob that the net is fed."""
        for spec in self.net.spec.layers:
            if not spec.bottoms and spec.tops and self.net.blobs[spec.tops[0]].shape:
                return self.net.blobs[spec.tops[0]].shape[0]
        return None

    def _python_layer(self, spec: LayerSpec, layer: PythonLayer, bottoms: Sequence[ir.Value]) -> Sequence[ir.Value]:
        instance = layer.instance
        if not hasattr(instance, "onnx"):
            if not bottoms:
                return self._inputs(spec)  # a data layer: what it makes is fed to the model
            raise ExportError(
                str(spec.error(f"{layer.layer_class.__name__} has no ONNX expression: give it a method onnx(self, op,"
                               " *bottoms)"))
            )  # fmt: skip
        self.op.parameters = [self._stored(index) for index in range(len(layer.blobs))]
        with self.op.layer(spec.name), layer.naming():
            tops = instance.onnx(self.op, *bottoms)
        tops = tops if isinstance(tops, (tuple, list)) else (tops,)
        if len(tops) != len(spec.tops):
            raise ExportError(str(spec.error(f"its onnx() gives {len(tops)} tops, the net has {len(spec.tops)}")))
        cls = layer.layer_class
        self.functions[spec.name] = LayerFunction(
            cls.__module__.split(".")[0], cls.__name__.removesuffix("Layer"), getattr(instance, "params", {})
        )
        return tops

    # What a standard layer asks of its host -------------------------------------------------------------------------

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value:
        stored = self._stored(index)
        return self.op.reshape(stored, shape) if self.op.shape(stored) != tuple(shape) else stored

    def _stored(self, index: int) -> ir.Value:
        """The tensor of the current layer's learnable blob; layers that share a blob share the tensor."""
        blob = self.net.layers[self._index].blobs[index]
        key = blob.data.__array_interface__["data"][0] if blob.count else id(blob)
        if key not in self.parameters:
            name = f"{self.net.spec.layers[self._index].name}/{index}"
            self.parameters[key] = self.op.initializer(name, blob.data)
            self.parameter_names[name] = key
        return self.parameters[key]

    def update(self, index: int, value: ir.Value) -> None:
        self.updates[f"{self.net.spec.layers[self._index].name}/{index}.after"] = value

    def random_uniform(self, like: ir.Value) -> ir.Value:
        if not self.options.random_inputs:
            return self.op.RandomUniformLike(like)
        name = f"{self.net.spec.layers[self._index].name}/random0"
        return self.op.input(name, self.op.shape(like))

    # Outputs --------------------------------------------------------------------------------------------------------

    def _name_results(self) -> None:
        named: set[ir.Value] = set(self.op.graph.inputs)
        order = sorted(self.results, key=lambda blob: blob in self._split_blobs())
        for blob in order:
            values = self.results[blob]
            for number, value in enumerate(values, start=1):
                if value in named:
                    continue  # an alias: another blob's result, or a graph input
                named.add(value)
                last = number == len(values) and values[0].producer() is not None
                self.op.rename(value, blob if last or len(values) == 1 else f"{blob}@{number}")

    def _split_blobs(self) -> set[str]:
        return {top for spec in self.net.spec.layers if spec.type == "Split" for top in spec.tops}

    def _output_values(self) -> dict[str, ir.Value]:
        splits = self._split_blobs()
        if self.options.all_blobs:
            values = {blob: values[-1] for blob, values in self.results.items() if blob not in splits}
        else:
            values = {name: self.current[name] for name in self.net.outputs if name not in splits}
            if self.options.training:
                losses = {name: self.current[name] for name, _ in self._losses()}
                values = {_without_split(name, self.net): value for name, value in losses.items()} | values
        # a blob that is fed and that nobody changes is no output; one that is fed and passed on in place needs a name
        fed = {value: value.name for value in self.op.graph.inputs}
        computed = {name: value for name, value in values.items() if fed.get(value) != name}
        if not computed:
            computed = {f"{name}@2": value for name, value in values.items()}
        if self.options.training:
            computed |= self.updates
        return computed

    def _losses(self) -> list[tuple[str, float]]:
        """The tops with a loss_weight, and it."""
        return [
            (top, weight)
            for spec, weights in zip(self.net.spec.layers, self.net.loss_weights, strict=True)
            for top, weight in zip(spec.tops, weights, strict=True)
            if weight
        ]

    # Gradients ------------------------------------------------------------------------------------------------------

    def _gradient_values(self) -> dict[str, ir.Value]:
        op = self.op
        by = {f"{name}.diff": self.parameters[key] for name, key in self.parameter_names.items()}
        if self.options.input_gradients:
            by |= {f"{value.name}.diff": value for value in op.graph.inputs if value.dtype.is_floating_point()}
        seeds = self._seeds()
        if self.options.all_blobs:
            for values in self.results.values():
                by |= {f"{value.name}.diff": value for value in values}
        # a diff that the model is fed is no output of it
        by = {name: value for name, value in by.items() if value not in seeds or seeds[value].name != name}
        frozen = self._frozen_parameters()
        wanted = [value for value in by.values() if value not in frozen]
        diffs = dict(zip(wanted, gradients(op, seeds, wanted), strict=True))
        outputs = {}
        for name, value in by.items():
            diff = diffs.get(value)
            if diff is None and name.removesuffix(".diff") in self.parameter_names:
                diff = op.zeros(value)
            if diff is not None:
                outputs[name] = diff
        return outputs

    def _seeds(self) -> dict[ir.Value, ir.Value]:
        """The diffs that backward starts from: the loss weights, or for a net without a loss inputs."""
        op, seeds = self.op, {}
        for top, weight in self._losses():
            value = self.current[top]
            seed = op.constant(weight, value.dtype.numpy())
            if op.shape(value) != ():
                seed = op.Add(op.zeros(value), seed)
            seeds[value] = op.Add(seeds[value], seed) if value in seeds else seed
        if not self._has_loss():
            for name in self.net.outputs:
                value = self.current[name]
                if value.name != name or value.producer() is not None:
                    diff = op.input(f"{name}.diff", op.shape(value))
                    seeds[value] = op.Add(seeds[value], diff) if value in seeds else diff
        return seeds

    def _has_loss(self) -> bool:
        """Whether some layer is a loss or has a loss_weight, though it be 0."""
        return any(
            layer.is_loss or spec.loss_weights
            for layer, spec in zip(self.net.layers, self.net.spec.layers, strict=True)
        )

    def _frozen_parameters(self) -> set[ir.Value]:
        """Statistics, and blobs that every layer which has them gives lr_mult 0."""
        learns: set[ir.Value] = set()
        seen: set[ir.Value] = set()
        for index, layer in enumerate(self.net.layers):
            self._index = index
            for i in range(len(layer.blobs)):
                value = self._stored(i)
                seen.add(value)
                if self.net.backward_need.learn[index][i]:
                    learns.add(value)
        return seen - learns


def _without_split(name: str, net: Net) -> str:
    """The blob that a split blob is a copy of."""
    for spec in net.spec.layers:
        if spec.type == "Split" and name in spec.tops:
            return spec.bottoms[0]
    return name
