"""The forward pass of a net as one ONNX graph, built layer by layer; it is the host of the standard layers in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from caffe_tools import standard
from caffe_tools.errors import ExportError, nearest
from caffe_tools.export.fold import fold as folding
from caffe_tools.export.functions import LayerFunction
from caffe_tools.export.options import ExportOptions
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.source_layer import SourceLayer
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.prototxt.fields import Values
from caffe_tools.prototxt.layer_spec import LayerSpec

BATCH, REGIONS, HEIGHT, WIDTH = "batch", "regions", "height", "width"
"""The names of symbolic dims."""


@dataclass(frozen=True)
class Named:
    """A value, and the name that it has as an output of the model."""

    name: str
    value: ir.Value


class ForwardGraph:
    """``net`` in the graph of ``op``.

    With ``options.training``, ``propagate_down: false`` and ``lr_mult: 0`` become values that no gradient passes. With
    ``options.all_blobs``, no two blobs are one value (a Flatten that has nothing to do would hand on its bottom), so
    that each has a diff of its own.
    """

    def __init__(self, net: Net, op: Builder, options: ExportOptions) -> None:
        self.net, self.op, self.options = net, op, options
        self.inputs: dict[str, ir.Value] = {}
        """Blobs that the model is fed."""
        self.random: dict[str, ir.Value] = {}
        """Layer → the random numbers that the model is fed for it."""
        self.current: dict[str, ir.Value] = {}
        """Every blob's last result."""
        self.results: dict[str, list[ir.Value]] = {}
        """Every blob's results in order, an in-place layer adding one. The tops of inserted Splits are not listed."""
        self.parameters: dict[str, ir.Value] = {}
        """``layer/0`` → the tensor, for the first of the layers that share it."""
        self.shared: dict[str, str] = {}
        """``layer/0`` → the parameter that it shares."""
        self.functions: dict[str, LayerFunction] = {}
        self._updates: dict[str, ir.Value] = {}
        self._bars: list[ir.Value] = []
        self._owners: dict[int, str] = {}
        self._split_from = {top: spec.bottoms[0] for spec in net.spec.layers if spec.is_inserted for top in spec.tops}
        self._regions = self._region_blobs() if options.dynamic_batch else set()
        self._batch, self._region_count = _first_dims(net, self._regions) if options.dynamic_batch else (None, None)
        self._folded, self._vanished = folding(net) if options.fold else ({}, set())
        self._index = 0
        _refuse_without_expression(net)
        op.reserve(top for spec in net.spec.layers for top in spec.tops if top not in self._split_from)
        for self._index, spec in enumerate(net.spec.layers):
            self._add_layer(spec)
        self._name_results()

    def _add_layer(self, spec: LayerSpec) -> None:
        layer = self.net.layers[self._index]
        if spec.name in self._vanished:
            self.current[spec.tops[0]] = value = self.current[spec.bottoms[0]]
            del self.results[spec.bottoms[0]]  # what the blob held in Caffe is nowhere in this graph
            self.results[spec.tops[0]] = [value]
            return
        bottoms = [self._bottom(spec, position) for position in range(len(spec.bottoms))]
        if isinstance(layer, SourceLayer):
            tops = self._fed(spec)
        elif isinstance(layer, PythonLayer) and (hasattr(layer.instance, "onnx") or standard.known_type(spec) is None):
            tops = self._python_layer(spec, layer, bottoms)
        else:
            built = self._folded[spec.name].spec if spec.name in self._folded else spec
            directory = layer.layer.directory if isinstance(layer, StandardLayer) else ""
            described = standard.Layer(built, standard.known_type(spec), self, directory)
            tops = standard.build(self.op, described, bottoms)
        for name, value in zip(spec.tops, tops, strict=True):
            if name not in self._split_from:
                if self.options.all_blobs and any(value in results for results in self.results.values()):
                    with self.op.layer(spec.name):
                        value = self.op.Identity(value)
                results = self.results.setdefault(name, [])
                if value not in results:
                    results.append(value)
            self.current[name] = value

    def _bottom(self, spec: LayerSpec, position: int) -> ir.Value:
        value = self.current[spec.bottoms[position]]
        is_barred = spec.propagate_down and not spec.propagate_down[position]
        return self._barred(value) if self.options.training and is_barred else value

    def _barred(self, value: ir.Value) -> ir.Value:
        """The same value, which no gradient passes."""
        barred = self.op.Identity(value)
        self.op.define_gradient([barred], [value], lambda diff: [None])
        self._bars.append(barred)
        return barred

    def lift_bars(self) -> None:
        """Take out the nodes that kept gradients from passing, once all gradients are there."""
        for barred in self._bars:
            node = barred.producer()
            if not barred.is_graph_output():
                barred.replace_all_uses_with(node.inputs[0])
                self.op.graph.remove(node, safe=True)

    def _fed(self, spec: LayerSpec) -> list[ir.Value]:
        for top in spec.tops:
            self.inputs[top] = self.op.input(top, self._dims(top, self.net.blobs[top].shape))
        return [self.inputs[top] for top in spec.tops]

    def _dims(self, top: str, shape: tuple[int, ...]) -> tuple[Dim, ...]:
        dims: tuple[Dim, ...] = shape
        if shape and shape[0] == self._batch and top not in self._regions:
            dims = (BATCH, *shape[1:])
        elif shape and shape[0] == self._region_count:
            dims = (REGIONS, *shape[1:])
        is_image = self.options.dynamic_size and not self.inputs and len(shape) == 4
        return (*dims[:2], HEIGHT, WIDTH) if is_image else dims

    def _region_blobs(self) -> set[str]:
        kinds = [(spec, standard.known_type(spec)) for spec in self.net.spec.layers]
        return {self.blob(spec.bottoms[kind.regions]) for spec, kind in kinds if kind and kind.regions is not None}

    def _python_layer(self, spec: LayerSpec, layer: PythonLayer, bottoms: Sequence[ir.Value]) -> Sequence[ir.Value]:
        instance, cls = layer.instance, layer.layer_class
        if not bottoms and not hasattr(instance, "onnx"):
            return self._fed(spec)  # a data layer: what it makes is fed to the model
        if not spec.tops:
            return []  # a layer that looks at its bottoms (shows or logs them) has no part in the numbers
        self.op.parameters = [self._stored(index) for index in range(len(layer.blobs))]
        with self.op.layer(spec.name), layer.naming():
            tops = instance.onnx(self.op, *bottoms)
        tops = tops if isinstance(tops, (tuple, list)) else (tops,)
        self._check_tops(spec, f"{cls.__name__}.onnx()", tops)
        self.functions[spec.name] = LayerFunction(
            cls.__module__.split(".")[0], cls.__name__.removesuffix("Layer"), getattr(instance, "params", {})
        )
        return tops

    def _check_tops(self, spec: LayerSpec, what: str, tops: Sequence[object]) -> None:
        if len(tops) != len(spec.tops):
            raise _export_error(spec, f"{what} gives {len(tops)} tops, the net has {len(spec.tops)}")
        for name, top in zip(spec.tops, tops, strict=True):
            if not isinstance(top, ir.Value):
                raise _export_error(spec, f"{what} gives a {type(top).__name__}, not a value as op.Relu(x) returns")
            if top.dtype != ir.DataType.FLOAT:
                raise _export_error(spec, f"{what} gives top {name!r} as {top.dtype}, blobs are FLOAT: use op.cast")
            shape, wanted = self.op.shape(top), self.net.blobs[name].shape
            fits = [isinstance(dim, str) or dim == want for dim, want in zip(shape, wanted, strict=False)]
            if len(shape) != len(wanted) or not all(fits):
                raise _export_error(spec, f"{what} gives top {name!r} the shape {shape}, its reshape() {wanted}")

    # What a standard layer asks of its host -------------------------------------------------------------------------

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value:
        if self._name() in self._folded:
            return self.op.initializer(f"{self._name()}/{index}", self._folded[self._name()].blobs[index])
        stored = self._stored(index)
        return self.op.reshape(stored, shape) if self.op.shape(stored) != tuple(shape) else stored

    def _stored(self, index: int) -> ir.Value:
        """The tensor of the current layer's learnable blob; layers that share a blob share the tensor."""
        blob = self.net.layers[self._index].blobs[index]
        key = blob.data.__array_interface__["data"][0] if blob.count else id(blob)
        name = f"{self._name()}/{index}"
        owner = self._owners.setdefault(key, name)
        if owner not in self.parameters:
            self.parameters[owner] = (
                self.op.input(owner, blob.shape)
                if self.options.parameter_inputs
                else self.op.initializer(owner, blob.data)
            )
        if owner != name:
            self.shared[name] = owner
        learns = self.net.backward_need.learn[self._index][index]
        return self._barred(self.parameters[owner]) if self.options.training and not learns else self.parameters[owner]

    def update(self, index: int, value: ir.Value) -> None:
        self._updates[f"{self._name()}/{index}"] = value

    def random_uniform(self, like: ir.Value) -> ir.Value:
        if not self.options.random_inputs:
            return self.op.RandomUniformLike(like)
        self.random[self._name()] = self.op.input(f"{self._name()}/random0", self.op.shape(like))
        return self.random[self._name()]

    def state(self, index: int, shape: Sequence[Dim]) -> None:
        """A model remembers nothing: every run starts with zeros."""

    def keep(self, index: int, value: ir.Value) -> None:
        """Nor does it leave anything to the next run."""

    def _name(self) -> str:
        return self.net.spec.layers[self._index].name

    # Names ----------------------------------------------------------------------------------------------------------

    def _name_results(self) -> None:
        named: set[ir.Value] = set(self.op.graph.inputs)
        for blob, values in self.results.items():
            for number, value in enumerate(values, start=1):
                if value in named:
                    continue  # another blob's result
                named.add(value)
                is_plain = number == len(values) and values[0] not in self.op.graph.inputs
                self.op.rename(value, blob if is_plain or len(values) == 1 else f"{blob}@{number}")

    # What may be an output of the model ------------------------------------------------------------------------------

    def blob(self, top: str) -> str:
        """The blob that a split top is a copy of; any other top is its own."""
        return self._split_from.get(top, top)

    def net_outputs(self) -> list[str]:
        return list(dict.fromkeys(self.blob(top) for top in self.net.outputs))

    def inner_blobs(self, names: Iterable[str]) -> list[str]:
        """``names``; ExportError for one that is no blob of the model, or that the model is just fed."""
        for name in names:
            if name not in self.results:
                if name in self.net.blobs and name not in self._split_from:
                    raise ExportError(f"blob {name!r} vanishes into the layer before it: export without fold")
                hint = nearest(name, self.results) or f"it has {', '.join(list(self.results)[:12])}"
                raise ExportError(f"the net has no blob {name!r}: {hint}")
            if self.results[name][-1] is self.inputs.get(name):
                raise ExportError(f"blob {name!r} is what the model is fed, and cannot be an output too")
        return list(names)

    def computed(self, blobs: Iterable[str]) -> dict[str, Named]:
        """``data/<blob>`` → its last result, without the blobs that the model is just fed."""
        found = {}
        for blob in blobs:
            value = self.results[blob][-1]
            if value is not self.inputs.get(blob):
                # of a blob that is fed, the graph input has the plain name
                found[f"data/{blob}"] = Named(value.name if blob in self.inputs else blob, value)
        return found

    def updates(self) -> dict[str, Named]:
        """``param_after/<layer>/<i>`` → what the forward pass leaves in that stored blob."""
        return {f"param_after/{name}": Named(f"{name}.after", value) for name, value in self._updates.items()}


def _first_dims(net: Net, regions: set[str]) -> tuple[int | None, int | None]:
    """The batch size and the number of regions: the first dim of the first blob of each kind that the net is fed."""
    fed = [top for spec in net.spec.layers if not spec.bottoms for top in spec.tops if net.blobs[top].shape]
    batch = next((net.blobs[top].shape[0] for top in fed if top not in regions), None)
    count = next((net.blobs[top].shape[0] for top in fed if top in regions), None)
    return batch, count


def _refuse_without_expression(net: Net) -> None:
    """ExportError that lists every Python layer which computes something, but has no ONNX expression."""
    lacking = [
        (spec, layer.layer_class.__name__)
        for spec, layer in zip(net.spec.layers, net.layers, strict=True)
        if isinstance(layer, PythonLayer) and spec.bottoms and spec.tops and not hasattr(layer.instance, "onnx")
        if standard.known_type(spec) is None
    ]
    how = "give it onnx(self, op, *bottoms)"
    if len(lacking) == 1:
        spec, name = lacking[0]
        raise _export_error(spec, f"{name} has no ONNX expression: {how}")
    if lacking:
        listed = ", ".join(f"{spec.name!r} ({name}, {spec.position})" for spec, name in lacking)
        raise ExportError(f"{len(lacking)} Python layers have no ONNX expression: {listed}; for each, {how}")


def _export_error(spec: LayerSpec, text: str) -> ExportError:
    return ExportError(str(spec.error(text)))
