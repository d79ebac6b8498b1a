"""An ONNX graph that somebody else has made: its tensors by name, and runs that give the values of any of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from caffe_tools.errors import GraphError, one_line
from caffe_tools.gradient import gradient_model
from caffe_tools.gradient.model import find
from caffe_tools.graph.session import make_session, run

Dim = int | str
TRAINING_OPERATORS = frozenset(
    f"com.microsoft.{name}"
    for name in (
        "InPlaceAccumulator InPlaceAccumulatorV2 Scale SoftmaxCrossEntropyLossInternal ZeroGradient Group PassThrough"
        " AdamOptimizer AdamWOptimizer SGDOptimizerV2 LambOptimizer GistBinarizeEncoder ConcatTraining SplitTraining"
        " ReduceSumTraining YieldOp RecordEvent WaitEvent MixedPrecisionScale ReduceAllL2 BatchNormInternal"
        " DivGrad SimplifiedLayerNormalizationGrad FakeQuant PadAndUnflatten ShrunkenGather"
    ).split()
)
"""Those of onnxruntime-training, next to gradients, which plain ONNX Runtime has not."""


@dataclass(frozen=True)
class GraphInput:
    """What the graph wants as one of its inputs; a dim is an int, or a str where it is open."""

    name: str
    dtype: np.dtype
    dims: tuple[Dim, ...]


class ForeignGraph:
    """A model that is run as it is, with inner tensors as further outputs.

    Raises GraphError where the file is no ONNX model, or ONNX Runtime cannot load it: then with the operators that it
    does not know.
    """

    def __init__(self, model: onnx.ModelProto | str | os.PathLike) -> None:
        self.name = str(model) if not isinstance(model, onnx.ModelProto) else model.graph.name or "the graph"
        self.model = model if isinstance(model, onnx.ModelProto) else _load(Path(model))
        graph = self.model.graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name: self._input(value) for value in graph.input if value.name not in self.stored}
        self.makers = {output: node for node in graph.node for output in node.output if output}
        """The node that makes each inner tensor."""
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}
        unknown = _unknown_operators(self.model)
        if unknown:
            names = ", ".join(unknown)
            raise GraphError(f"{self.name} cannot be run: ONNX Runtime has no operator {names}{_hint(unknown)}")

    @property
    def names(self) -> list[str]:
        return [*self.inputs, *self.stored, *self.makers]

    def find(self, name: str) -> str:
        """``name``, which must be a tensor of the graph. Raises GraphError, with the nearest names."""
        return find(name, self.names, self.name)

    def _input(self, value: onnx.ValueInfoProto) -> GraphInput:
        if not value.type.HasField("tensor_type"):
            raise GraphError(f"{self.name}: the input {value.name!r} is no tensor")
        type_ = value.type.tensor_type
        read = [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "") for dim in type_.shape.dim]
        dims = tuple(f"{value.name}.dim{axis}" if dim == "" else dim for axis, dim in enumerate(read))
        try:
            return GraphInput(value.name, onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type), dims)
        except KeyError:
            raise GraphError(f"{self.name}: the input {value.name!r} has the unknown dtype {type_.elem_type}") from None

    @property
    def small_constants(self) -> list[float]:
        """The single numbers between 0 and 1 that the graph holds."""
        tensors = [*self.stored.values()]
        for node in _all_nodes(self.model.graph.node):
            tensors += [attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR]
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
        single = [one for one in tensors if one.data_type in floats and math.prod(one.dims) == 1]
        values = [float(onnx.numpy_helper.to_array(one).reshape(())) for one in single]
        values += [
            attribute.f
            for node in _all_nodes(self.model.graph.node)
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.FLOAT
        ]
        return list(dict.fromkeys(value for value in values if 0 < value < 1))

    def cut(self, name: str, value: np.ndarray) -> ForeignGraph:
        """The part of the graph behind the inner tensor ``name``, which is an input there, such as ``value``."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for node in model.graph.node:
            for index, output in enumerate(node.output):
                if output == name:
                    node.output[index] = f"{name}/before.the.cut"
        dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, value.shape))
        outputs = [output for output in model.graph.output if output.name != name]
        del model.graph.output[:]
        model.graph.output.extend(outputs)
        behind = ForeignGraph(model)
        behind.name = self.name
        return behind

    def run(self, feeds: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
        """The values of the tensors ``names``. Raises GraphError where ONNX Runtime fails."""
        names = list(dict.fromkeys(names))
        values = {name: feeds[name] for name in names if name in feeds}
        values |= {name: onnx.numpy_helper.to_array(self.stored[name]) for name in names if name in self.stored}
        computed = tuple(name for name in names if name not in values)
        if computed:
            if computed not in self._sessions:
                self._sessions[computed] = make_session(self._with_outputs(computed))
            values |= zip(computed, run(self._sessions[computed], list(computed), dict(feeds), self.name), strict=True)
        return values

    def _with_outputs(self, names: Sequence[str]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        there = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
        return model

    def carry(self, tensor: str, by: Sequence[str]) -> Carry:
        """What carries a gradient by ``tensor`` back to the tensors ``by`` that it is computed from."""
        return Carry(self, tensor, by)

    def computed_from(self, tensor: str) -> set[str]:
        """The tensors that ``tensor`` is computed from."""
        found: set[str] = set()
        waiting = [tensor]
        while waiting:
            node = self.makers.get(waiting.pop())
            new = set(_inputs_of(node)) - found if node is not None else set()
            found |= new
            waiting += new
        return found


class Carry:
    """Carries a gradient back through the graph's own forward part, by the rules of ``gradient/``."""

    DIFF = "the.gradient.carried.back"

    def __init__(self, graph: ForeignGraph, tensor: str, by: Sequence[str]) -> None:
        self.graph, self.by = graph, list(by)
        model = gradient_model(graph.model, tensor, self.by, output_diff=self.DIFF)
        self._wanted = {value.name for value in model.graph.input}
        self._session = make_session(model)

    def __call__(self, feeds: Mapping[str, np.ndarray], diff: np.ndarray) -> dict[str, np.ndarray]:
        """The gradient by each tensor, where that by the scores is ``diff``."""
        given = {name: array for name, array in feeds.items() if name in self._wanted}
        if self.DIFF in self._wanted:
            given[self.DIFF] = diff
        names = [f"{name}.diff" for name in self.by]
        return dict(zip(self.by, run(self._session, names, given, self.graph.name), strict=True))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, format="protobuf")  # whatever its name
    except FileNotFoundError as error:
        raise GraphError(f"{error.filename or path} is not there") from None
    except IsADirectoryError:
        raise GraphError(f"{path} is a folder, not an ONNX model") from None
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{path} is no ONNX model: {one_line(error)}") from None
    if not model.graph.node or not model.opset_import:
        raise GraphError(f"{path} is no ONNX model: it has no nodes, or no opset")
    return model


def _unknown_operators(model: onnx.ModelProto) -> list[str]:
    """The operators that neither ONNX Runtime nor the model defines, such as ``com.microsoft.ConvGrad``."""
    runtime = onnxruntime.capi.onnxruntime_pybind11_state
    if not hasattr(runtime, "get_all_operator_schema"):
        return []  # an unusual build: loading the graph will say what is wrong
    known = {(schema.domain, schema.name) for schema in runtime.get_all_operator_schema()}
    known |= {(function.domain, function.name) for function in model.functions}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    used = {(_domain(node), node.op_type) for body in bodies for node in _all_nodes(body)}
    return sorted(f"{domain or 'ai.onnx'}.{op_type}" for domain, op_type in used - known)


def _hint(unknown: Iterable[str]) -> str:
    """Where they may be had, if they are of the kind that a training graph holds."""
    of_training = [name for name in unknown if name.endswith("Grad") or name in TRAINING_OPERATORS]
    if not of_training:
        return ""
    return f" ({of_training[0]} is an operator of the package onnxruntime-training: crosscheck in a Python that has it)"


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g.node)


def _inputs_of(node: onnx.NodeProto) -> list[str]:
    """The inputs of a node, and what the graphs within it use."""
    return [name for inner in _all_nodes([node]) for name in inner.input if name]


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain
