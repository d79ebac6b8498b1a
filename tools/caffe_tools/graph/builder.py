"""The ONNX graph builder handed to every layer as ``op``: ``op.Sigmoid(x)`` appends a node and returns its value.

A thin layer over onnx-ir. What it adds: Python numbers become constants of the right dtype, every value knows its
dtype and shape at once (onnx's own shape inference, node by node), dims may be symbolic, and a layer may define the
gradient of what it built (``define_gradient``), which ``gradient.py`` then uses instead of deriving it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from caffe_tools.errors import GraphError
from caffe_tools.graph import ir
from caffe_tools.graph.dims import Dim, all_known, dtype_of, resolve, shape_of

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The opset that graphs are built in: the first whose reductions all take their axes as an input."""

Diffs: TypeAlias = "Sequence[ir.Value | None]"


@dataclass(frozen=True)
class DefinedGradient:
    """The gradient of ``tops`` by ``bottoms``, given by a layer: ``rule(*top_diffs) -> bottom diffs``."""

    tops: tuple[ir.Value, ...]
    bottoms: tuple[ir.Value, ...]
    rule: Callable[..., Diffs]


class Builder:
    """Builds one ONNX graph in topological order.

    ``op.<OpType>(*inputs, outputs=1, **attributes)`` appends a node of the default domain. An input is a value, None
    (left out), or a number, list or array, which becomes a constant of the dtype that the operator's schema asks for
    there. The result is one value, or a tuple of them where ``outputs`` is greater than 1.
    """

    def __init__(self, opset: int = OPSET, float_type: np.typing.DTypeLike = np.float32, name: str = "net") -> None:
        self.opset = opset
        self.float_type = np.dtype(float_type)
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name=name)
        self.defined_gradients: list[DefinedGradient] = []
        self._layer, self._is_gradient = "", False
        self.parameters: list[ir.Value] = []
        """The learnable blobs of the Python layer that is being built, for its ``onnx`` to use."""
        self._names: set[str] = set()
        self._reserved: set[str] = set()
        self._constants: dict[tuple, ir.Value] = {}
        self._constant_values: set[ir.Value] = set()

    @classmethod
    def over(cls, graph: ir.Graph, float_type: np.typing.DTypeLike = np.float32) -> Builder:
        """A builder that goes on with ``graph``, in its opset: what it adds gets names that are free there.

        Dims that the graph leaves unnamed get names, so that no two of them count as equal.
        """
        op = cls(graph.opset_imports[""], float_type)
        op.graph = graph
        nodes = list(graph.all_nodes())
        values = [*graph.inputs, *graph.initializers.values(), *(output for node in nodes for output in node.outputs)]
        op._names.update(value.name for value in values if value.name)
        for node in nodes:
            node.name = op.unique_name(node.name or node.op_type)
        for value in values:
            if value.shape is not None and any(dim is None or dim == ir.SymbolicDim(None) for dim in value.shape):
                open_ = f"{value.name}.dim"
                dims = [d if isinstance(d, int) or d.value else f"{open_}{i}" for i, d in enumerate(value.shape)]
                value.shape = ir.Shape(dims)
        return op

    def reserve(self, names: Iterable[str]) -> None:
        """Keep these names for the inputs and values that are given them (``input``, ``rename``): whatever else would
        have one gets it with a number."""
        self._reserved.update(names)

    def inner(self, name: str) -> Builder:
        """A builder for the body of a Loop: its names are none of this graph's."""
        inner = Builder(self.opset, self.float_type, self.unique_name(name))
        inner._names, inner._reserved = self._names, self._reserved
        return inner

    def input(self, name: str, shape: Sequence[Dim], dtype: np.typing.DTypeLike | None = None) -> ir.Value:
        """A graph input of that name."""
        value = ir.val(self._claim(name), _ir_type(dtype or self.float_type), ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """A stored tensor of that name. The array is not copied."""
        tensor = ir.tensor(array, name=self.unique_name(name))
        value = ir.val(tensor.name, tensor.dtype, ir.Shape(array.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def output(self, value: ir.Value, name: str) -> ir.Value:
        """Make ``value`` a graph output called ``name``; a graph input, a stored tensor or a value that is an output
        already gets an Identity, since ONNX lets a value have one name."""
        if value.name != name or value in self.graph.outputs or value.producer() is None:
            if self._is_own(value) and value not in self.graph.outputs:
                self.rename(value, name)
            else:
                value = self.Identity(value)
                self.rename(value, name)
        self.graph.outputs.append(value)
        return value

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a computed value the name ``name`` (or that name with a number, where it is taken)."""
        if value.name != name:
            value.name = self._claim(name)

    def _is_own(self, value: ir.Value) -> bool:
        node = value.producer()
        return node is not None and node.graph is self.graph and (value.name or "").startswith(node.name or "\0")

    @contextmanager
    def layer(self, name: str, is_gradient: bool = False) -> Iterator[None]:
        """Nodes made inside belong to the layer ``name``, or to its gradient: their names and metadata say so."""
        previous = self._layer, self._is_gradient
        self._layer, self._is_gradient = name, is_gradient
        try:
            yield
        finally:
            self._layer, self._is_gradient = previous

    def define_gradient(
        self, tops: Sequence[ir.Value], bottoms: Sequence[ir.Value], rule: Callable[..., Diffs]
    ) -> None:
        """The gradient of ``tops`` by ``bottoms`` is ``rule(*top_diffs)``: one value, or None, for each bottom.

        ``top_diffs[i]`` is None where no gradient reaches that top. The rule may use every value of the forward
        graph. Anything that lies between the bottoms and the tops gets no gradient of its own.
        """
        self.defined_gradients.append(DefinedGradient(tuple(tops), tuple(bottoms), rule))

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(f"the graph builder has no attribute {op_type!r}")

        def append(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            values = self.node(op_type, inputs, outputs, attributes)
            return values[0] if outputs == 1 else values

        return append

    def node(self, op_type: str, inputs: Sequence[Any], outputs: int, attributes: dict[str, Any]) -> tuple:
        """Append one node; its output values, with their inferred dtypes and shapes."""
        import onnx

        from caffe_tools.graph.inference import infer

        try:
            schema = onnx.defs.get_schema(op_type, self.opset, "")
        except onnx.defs.SchemaError:
            raise GraphError(f"ONNX opset {self.opset} has no operator {op_type!r}") from None
        if isinstance(attributes.get("to"), str):
            attributes["to"] = _ir_type(attributes["to"])
        attributes = {name: value for name, value in attributes.items() if value is not None}
        values = self._as_values(schema, inputs)
        name = self.unique_name(f"{self._layer}/{op_type}" if self._layer else op_type)
        node = ir.node(op_type, values, attributes, num_outputs=outputs, name=name)
        if self._layer:
            node.metadata_props["layer"] = self._layer
        if self._is_gradient:
            node.metadata_props["gradient"] = "true"
        for index, output in enumerate(node.outputs):
            output.name = name if index == 0 else self.unique_name(f"{name}.{index}")
        infer(schema, node, self.opset)
        self.graph.append(node)
        return tuple(node.outputs)

    def _as_values(self, schema: onnx.defs.OpSchema, inputs: Sequence[Any]) -> list[ir.Value | None]:
        formal = [schema.inputs[min(i, len(schema.inputs) - 1)] for i in range(len(inputs))]
        dtypes: dict[str, np.dtype] = {}
        for parameter, value in zip(formal, inputs, strict=True):
            if isinstance(value, ir.Value) and value.dtype is not None:
                dtypes[parameter.type_str] = dtype_of(value)
        values: list[ir.Value | None] = []
        for parameter, value in zip(formal, inputs, strict=True):
            if value is None or isinstance(value, ir.Value):
                values.append(value)
                continue
            if isinstance(value, (tuple, list)) and any(isinstance(item, ir.Value) for item in value):
                raise GraphError(f"{schema.name} gets {len(value)} values as one input: take one of them, or give each")
            dtype = dtypes.get(parameter.type_str) or _concrete_type(parameter.type_str)
            values.append(self.constant(value, dtype))
        return values

    def constant(self, value: Any, dtype: np.typing.DTypeLike | None = None) -> ir.Value:
        """A small stored tensor; equal ones are stored once."""
        array = np.asarray(value)
        if dtype is None:
            dtype = self.float_type if array.dtype.kind == "f" else np.int64 if array.dtype.kind in "iu" else None
        array = np.ascontiguousarray(array, dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer("constant", array)
            self._constant_values.add(self._constants[key])
        return self._constants[key]

    def is_constant(self, value: ir.Value) -> bool:
        """Whether the builder itself stored this tensor (it is none of the net's parameters)."""
        return value in self._constant_values

    @staticmethod
    def shape(value: ir.Value) -> tuple[Dim, ...]:
        """The dims of ``value``: an int, or a str where the dim is symbolic."""
        return shape_of(value)

    def cast(self, value: ir.Value, to: ir.Value | str) -> ir.Value:
        """``value`` as dtype ``to`` (a dtype's name, or a value that has it)."""
        dtype = to.dtype if isinstance(to, ir.Value) else _ir_type(to)
        return value if value.dtype == dtype else self.Cast(value, to=dtype)

    def dims(self, value: ir.Value, axes: Sequence[int] | None = None) -> ir.Value:
        """The dims of ``value`` on ``axes`` (default: all), as an int64 tensor; computed where one is symbolic."""
        shape = self.shape(value)
        axes = [axis % len(shape) for axis in (range(len(shape)) if axes is None else axes)]
        dims = [shape[axis] for axis in axes]
        if all_known(dims):
            return self.constant(dims, np.int64)
        if axes == list(range(axes[0], axes[-1] + 1)):
            return self.Shape(value, start=axes[0], end=axes[-1] + 1)
        return self.Gather(self.Shape(value), self.constant(axes, np.int64))

    def count(self, value: ir.Value, axes: Sequence[int] | None = None) -> ir.Value:
        """The product of the dims on ``axes`` (default: all) as a scalar of the value's dtype."""
        shape = self.shape(value)
        dims = shape if axes is None else [shape[axis] for axis in axes]
        if all_known(dims):
            return self.constant(math.prod(dims), dtype_of(value))
        return self.cast(self.ReduceProd(self.dims(value, axes), keepdims=0), value)

    def zeros(self, like: ir.Value) -> ir.Value:
        """Zeros of the shape and dtype of ``like``."""
        result = self.ConstantOfShape(self.dims(like), value=ir.tensor(np.zeros(1, dtype_of(like))))
        result.shape = ir.Shape(self.shape(like))
        return result

    def reshape(self, value: ir.Value, dims: Sequence[Dim]) -> ir.Value:
        """``value`` in the shape ``dims``: ints, symbolic dims that ``value`` has too, and at most one -1."""
        source, dims = self.shape(value), list(dims)
        if tuple(dims) == source:
            return value
        dims = resolve(source, dims)
        target: list[int] = []
        for axis, dim in enumerate(dims):
            if isinstance(dim, int):
                target.append(dim)
            elif axis < len(source) and source[axis] == dim:
                target.append(0)
            else:
                target.append(-1)
        is_empty, is_open = 0 in dims, any(isinstance(dim, str) for dim in dims)
        if target.count(-1) > 1 or (is_empty and is_open):
            # a symbolic dim that the source does not have is what -1 stands for
            known = [d if isinstance(d, int) or d in source else -1 for d in dims]
            parts = [self.constant([d]) if isinstance(d, int) else self.dims(value, [source.index(d)]) for d in known]
            result = self.Reshape(value, self.Concat(*parts, axis=0), allowzero=int(is_empty) or None)
        else:
            result = self.Reshape(value, self.constant(target, np.int64), allowzero=int(is_empty) or None)
        result.shape = ir.Shape(dims)
        return result

    def remove_unused(self) -> None:
        """Drop nodes and stored tensors that no output needs, and the inputs among them."""
        from caffe_tools.graph.passes import RemoveUnused
        from caffe_tools.graph.session import IR_VERSION

        RemoveUnused()(ir.Model(self.graph, ir_version=IR_VERSION))

    def unique_name(self, name: str) -> str:
        """``name``, or that with a number where it is taken or reserved."""
        number, free = 2, name
        while free in self._names or free in self._reserved:
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free

    def _claim(self, name: str) -> str:
        if name not in self._reserved:
            return self.unique_name(name)
        self._reserved.remove(name)
        self._names.add(name)
        return name

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """The dim of ``value`` on ``axis``, as an int64 scalar."""
        return self.Squeeze(self.dims(value, [axis]), [0])

    def places(self, value: ir.Value, axis: int) -> ir.Value:
        """The places on ``axis`` of ``value``: 0, 1, 2, … as int64."""
        return self.Range(self.constant(0), self.size(value, axis), self.constant(1))

    def without_gradient(self, y: ir.Value, *bottoms: ir.Value) -> ir.Value:
        """``y``, made of ``bottoms``, to which no gradient passes."""
        self.define_gradient([y], bottoms, lambda diff: [None] * len(bottoms))
        return y


def _ir_type(dtype: Any) -> ir.DataType:
    return dtype if isinstance(dtype, ir.DataType) else ir.DataType.from_numpy(np.dtype(dtype))


def _concrete_type(type_str: str) -> np.dtype | None:
    """ "tensor(int64)" → int64; None for a type variable."""
    if type_str.startswith("tensor("):
        return np.dtype({"float": "float32", "double": "float64"}.get(type_str[7:-1], type_str[7:-1]))
    return None
