"""The forward pass of a net as one ONNX graph, built layer by layer; it is the host of the standard layers in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from caffe_tools import standard
from caffe_tools.errors import ExportError, few, nearest
from caffe_tools.export.fold import fold as folding
from caffe_tools.export.functions import LayerFunction
from caffe_tools.export.options import ExportOptions
from caffe_tools.export.shared_memory import SharedMemory
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim
from caffe_tools.net.keys import DATA, PARAM_AFTER, layer_of, part_of
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.results import Result
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
    ``options.all_blobs``, no two blobs are one value (a Flatten that has nothing to do would hand on its bottom), and
    with both no two tops of a Split, so that each has a diff of its own.
    """

    def __init__(self, net: Net, op: Builder, options: ExportOptions) -> None:
        self.net, self.op, self.options = net, op, options
        self.inputs: dict[str, ir.Value] = {}
        """Blobs that the model is fed."""
        self.random: dict[str, ir.Value] = {}
        """``layer/0`` → random numbers that the model is fed."""
        self.current: dict[str, ir.Value] = {}
        """Every blob's last result."""
        self.results: dict[str, list[ir.Value]] = {}
        """Every blob's results in order, an in-place layer adding one. The tops of inserted Splits are not listed."""
        self.copies: dict[str, ir.Value] = {}
        """The tops of inserted Splits, where each is a value of its own."""
        self.parameters: dict[str, ir.Value] = {}
        """``layer/0`` → the tensor, for the first of the layers that share it."""
        self.shared: dict[str, str] = {}
        """``layer/0`` → the parameter that it shares."""
        self.functions: dict[str, LayerFunction] = {}
        self._updates: dict[str, ir.Value] = {}
        self._memory = SharedMemory(self)
        self.bars: dict[ir.Value, ir.Value] = {}
        """Copies of values, which no gradient passes → the values."""
        self._owners: dict[int, str] = {}
        self._split_from = net.copies
        self._regions = region_blobs(net) if options.dynamic_batch else set()
        self._batch, self._region_count = first_dims(net) if options.dynamic_batch else (None, None)
        self._folded, self._vanished = folding(net) if options.fold else ({}, set())
        _refuse_without_expression(net)
        op.reserve(name for name in net.blobs if name not in self._split_from)
        for self._placed in net.placed:
            self._add_layer(self._placed)
        self._name_results()

    def _add_layer(self, placed: PlacedLayer) -> None:
        spec, layer, kind = placed.spec, placed.layer, standard.known_type(placed.spec)
        if spec.name in self._vanished:
            self.current[spec.tops[0]] = value = self.current[spec.bottoms[0]]
            del self.results[spec.bottoms[0]]  # what the blob held in Caffe is nowhere in this graph
            self.results[spec.tops[0]] = [value]
            return
        asked = self.options.training and spec.propagate_down
        bottoms = [self.current[bottom] for bottom in spec.bottoms]
        bottoms = [self._barred(bottoms[i]) if asked and not asked[i] else bottoms[i] for i in range(len(bottoms))]
        tops: Sequence[ir.Value]
        sharing = None
        if isinstance(layer, SourceLayer):
            tops = self._fed(placed)
        elif isinstance(layer, PythonLayer) and (hasattr(layer.instance, "onnx") or kind is None):
            tops = self._python_layer(placed, layer, bottoms)
        else:
            built = self._folded[spec.name].spec if spec.name in self._folded else spec
            assert kind is not None  # the net has refused unknown types
            directory = layer.layer.directory if isinstance(layer, StandardLayer) else ""
            described = standard.Layer(built, kind, self, directory)
            tops = standard.build(self.op, described, bottoms)
            sharing = described.sharing
        for name, value in zip(spec.tops, tops, strict=True):
            if name not in self._split_from:
                if self.options.all_blobs and any(value in results for results in self.results.values()):
                    with self.op.layer(spec.name):
                        value = self.op.Identity(value)
                results = self.results.setdefault(name, [])
                if value not in results:
                    results.append(value)
            elif self.options.training and self.options.all_blobs:
                with self.op.layer(spec.name):
                    value = self.copies[name] = self.op.Identity(value)
            self.current[name] = value
        self._memory.follow(placed, sharing)

    def _barred(self, value: ir.Value) -> ir.Value:
        """The same value, which no gradient passes."""
        barred = self.op.Identity(value)
        self.op.define_gradient([barred], [value], lambda diff: [None])
        self.bars[barred] = value
        return barred

    def _fed(self, placed: PlacedLayer) -> list[ir.Value]:
        for name, top in zip(placed.spec.tops, placed.tops, strict=True):
            self.inputs[name] = self.op.input(name, self._dims(name, top.shape))
        return [self.inputs[name] for name in placed.spec.tops]

    def _dims(self, top: str, shape: tuple[int, ...]) -> tuple[Dim, ...]:
        dims: tuple[Dim, ...] = shape
        if shape and shape[0] == self._batch and top not in self._regions:
            dims = (BATCH, *shape[1:])
        elif shape and shape[0] == self._region_count:
            dims = (REGIONS, *shape[1:])
        is_image = self.options.dynamic_size and not self.inputs and len(shape) == 4
        return (*dims[:2], HEIGHT, WIDTH) if is_image else dims

    def _python_layer(self, placed: PlacedLayer, layer: PythonLayer, bottoms: Sequence[ir.Value]) -> Sequence[ir.Value]:
        spec, instance, cls = layer.spec, layer.instance, layer.layer_class
        if not bottoms and not hasattr(instance, "onnx"):
            return self._fed(placed)  # a data layer: what it makes is fed to the model
        if not spec.tops:
            return []  # a layer that looks at its bottoms (shows or logs them) has no part in the numbers
        self.op.parameters = [self._stored(index) for index in range(len(layer.blobs))]
        known = len(self.op.defined_gradients)
        with self.op.layer(spec.name), layer.naming():
            tops = instance.onnx(self.op, *bottoms)
        self.op.defined_gradients[known:] = [
            replace(defined, rule=layer.naming()(defined.rule)) for defined in self.op.defined_gradients[known:]
        ]
        tops = tops if isinstance(tops, (tuple, list)) else (tops,)
        self._check_tops(placed, f"{cls.__name__}.onnx()", tops)
        self.functions[spec.name] = LayerFunction(
            cls.__module__.split(".")[0], cls.__name__.removesuffix("Layer"), getattr(instance, "params", {})
        )
        return tops

    def _check_tops(self, placed: PlacedLayer, what: str, tops: Sequence[object]) -> None:
        spec = placed.spec
        if len(tops) != len(spec.tops):
            raise _export_error(spec, f"{what} gives {len(tops)} tops, the net has {len(spec.tops)}")
        for name, blob, top in zip(spec.tops, placed.tops, tops, strict=True):
            if not isinstance(top, ir.Value):
                raise _export_error(spec, f"{what} gives a {type(top).__name__}, not a value as op.Relu(x) returns")
            if top.dtype != ir.DataType.FLOAT:
                raise _export_error(spec, f"{what} gives top {name!r} as {top.dtype}, blobs are FLOAT: use op.cast")
            shape, wanted = self.op.shape(top), blob.shape
            fits = [isinstance(dim, str) or dim == want for dim, want in zip(shape, wanted, strict=False)]
            if len(shape) != len(wanted) or not all(fits):
                raise _export_error(spec, f"{what} gives top {name!r} the shape {shape}, its reshape() {wanted}")

    # What a standard layer asks of its host -------------------------------------------------------------------------

    def parameter(self, index: int, shape: Sequence[int], filler: Values) -> ir.Value:
        layer = self._placed.name
        if layer in self._folded:
            return self.op.initializer(part_of(layer, index), self._folded[layer].blobs[index])
        stored = self._stored(index)
        return self.op.reshape(stored, shape) if self.op.shape(stored) != tuple(shape) else stored

    def _stored(self, index: int) -> ir.Value:
        """The tensor of the current layer's learnable blob; layers that share a blob share the tensor."""
        blob = self._placed.layer.blobs[index]
        name = part_of(self._placed.name, index)
        owner = self._owners.setdefault(blob.memory, name)
        if owner not in self.parameters:
            self.parameters[owner] = (
                self.op.input(owner, blob.shape)
                if self.options.parameter_inputs
                else self.op.initializer(owner, blob.data)
            )
        if owner != name:
            self.shared[name] = owner
        is_barred = self.options.training and not self._placed.learn[index]
        return self._barred(self.parameters[owner]) if is_barred else self.parameters[owner]

    def update(self, index: int, value: ir.Value) -> None:
        self.update_of(part_of(self._placed.name, index), value)

    def update_of(self, name: str, value: ir.Value) -> None:
        """The forward pass leaves ``value`` in learnable blob ``name``."""
        self._updates[name] = value

    def random_uniform(self, like: ir.Value) -> ir.Value:
        if not self.options.random_inputs:
            return self.op.RandomUniformLike(like)
        layer = self._placed.name
        number = sum(layer_of(part) == layer for part in self.random)
        value = self.op.input(f"{layer}/random{number}", self.op.shape(like))
        self.random[part_of(layer, number)] = value
        return value

    def state(self, index: int, shape: Sequence[Dim]) -> None:
        """A model remembers nothing: every run starts with zeros."""

    def keep(self, index: int, value: ir.Value) -> None:
        """Nor does it leave anything to the next run."""

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
        if self.options.to:
            return self.inner_blobs(self.options.to)
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
                found[DATA.key(blob)] = Named((value.name if blob in self.inputs else None) or blob, value)
        return found

    def inner(self) -> dict[Result, ir.Value]:
        """Every result of every blob, and the tops of inserted Splits that are values of their own."""
        results = {Result(blob, n): value for blob, values in self.results.items() for n, value in enumerate(values, 1)}
        return results | {Result(name, 1): value for name, value in self.copies.items()}

    def updates(self) -> dict[str, Named]:
        """``param_after/<layer>/<i>`` → what the forward pass leaves in that stored blob."""
        return PARAM_AFTER.keyed({name: Named(f"{name}.after", value) for name, value in self._updates.items()})


@dataclass
class LiftBars(ir.passes.InPlacePass):
    """Leave the nodes that kept gradients from passing unused, once all gradients are there."""

    bars: Mapping[ir.Value, ir.Value]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for barred, value in self.bars.items():
            if not barred.is_graph_output():
                ir.convenience.replace_all_uses_with(barred, value)
        return ir.passes.PassResult(model, bool(self.bars))


def region_blobs(net: Net) -> set[str]:
    """The blobs that have a row for each region to pool."""
    kinds = [(placed.spec, standard.known_type(placed.spec)) for placed in net.placed]
    found = {spec.bottoms[kind.regions] for spec, kind in kinds if kind and kind.regions is not None}
    return {net.copies.get(name, name) for name in found}


def first_dims(net: Net) -> tuple[int | None, int | None]:
    """The batch size and the number of regions: the first dim of the first blob of each kind that the net is fed."""
    regions = region_blobs(net)
    made = [placed for placed in net.placed if not placed.bottoms and not placed.layer.blobs]
    fed = [(name, top.shape) for placed in made for name, top in zip(placed.spec.tops, placed.tops, strict=True)]
    batch = next((shape[0] for name, shape in fed if shape and name not in regions), None)
    count = next((shape[0] for name, shape in fed if shape and name in regions), None)
    return batch, count


def _refuse_without_expression(net: Net) -> None:
    """ExportError that lists every Python layer which computes something, but has no ONNX expression."""
    lacking = [
        (layer.spec, layer.layer_class.__name__)
        for layer in net.layers
        if isinstance(layer, PythonLayer) and layer.spec.bottoms and layer.spec.tops
        if not hasattr(layer.instance, "onnx") and standard.known_type(layer.spec) is None
    ]
    how = "give it onnx(self, op, *bottoms)"
    if len(lacking) == 1:
        spec, name = lacking[0]
        raise _export_error(spec, f"{name} has no ONNX expression: {how}")
    if lacking:
        listed = few((f"{spec.name!r} ({name}, {spec.position})" for spec, name in lacking), 100)
        raise ExportError(f"{len(lacking)} Python layers have no ONNX expression: {listed}; for each, {how}")


def _export_error(spec: LayerSpec, text: str) -> ExportError:
    return ExportError(str(spec.error(text)))
