"""LSTM and RNN: Caffe's recurrent layers.

Bottoms: x (T × N × …, T steps of N streams), cont (T × N: 0 where a stream starts anew, 1 where it goes on), then
x_static (N × …) where the layer has one, then with ``expose_hidden`` the state before the first step. Tops: the output
of every step (T × N × num_output), then with ``expose_hidden`` the state after the last step. A state is
1 × N × num_output: h for RNN, h and c for LSTM.

Without ``expose_hidden`` a layer of the embedded net starts with the state in which its last forward pass ended, as in
Caffe; its first one starts with zeros. An exported model remembers nothing: every run of it starts with zeros. No
gradient enters or leaves by a state, exposed or not.

Source: Caffe src/caffe/layers/recurrent_layer.cpp, lstm_layer.cpp, lstm_unit_layer.cpp, rnn_layer.cpp; Donahue et al.,
Long-term Recurrent Convolutional Networks for Visual Recognition and Description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import Dim
from caffe_tools.prototxt.fields import Bool, Submessage, UInt
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import BINARY, layer_type

if TYPE_CHECKING:
    from caffe_tools.gradient.scan import Step, Values

RECURRENT_PARAM = {
    "num_output": UInt(0),
    "weight_filler": Submessage(FILLER),
    "bias_filler": Submessage(FILLER),
    "debug_info": Bool(False),
    "expose_hidden": Bool(False),
}


@layer_type("LSTM", bottoms=(2, 5), tops=(1, 3), labels={1: BINARY}, recurrent_param=RECURRENT_PARAM)
def lstm(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Long short-term memory: h = o · tanh(c), c = cont · f · c' + i · g, where c' is c of the step before.

    The gates i, f, o are sigmoids and g a tanh of W_x · x + b + W_h · cont · h' (+ W_static · x_static). Learnable
    blobs: W_x (4·num_output × …, the rows in the order i, f, o, g), b, W_static where there is x_static, W_h.
    """
    p, outputs = layer.recurrent_param, layer.recurrent_param.num_output
    static, state = _split_bottoms(op, layer, bottoms, ("h", "c"))
    gates = _input_terms(op, layer, bottoms[0], static, 4 * outputs)
    recurrent = layer.parameter((4 * outputs, outputs), p.weight_filler)

    def step(op: Builder, items: Values, state: Sequence[ir.Value | None], weights: Values) -> tuple[ir.Value, Values]:
        (gate, cont), (hidden, cell) = items, state
        if hidden is not None:
            gate = op.Gemm(op.Mul(hidden, cont), weights[0], gate, transB=1)
        sigmoids, candidate = op.Split(gate, [3 * outputs, outputs], axis=1, outputs=2)
        enter, forget, leave = op.Split(op.Sigmoid(sigmoids), [outputs] * 3, axis=1, outputs=3)
        entered = op.Mul(enter, op.Tanh(candidate))
        cell = entered if cell is None else op.Add(op.Mul(cont, op.Mul(forget, cell)), entered)
        hidden = op.Mul(leave, op.Tanh(cell))
        return hidden, (hidden, cell)

    return _over_steps(op, layer, gates, bottoms[1], state, [recurrent], step)


@layer_type("RNN", bottoms=(2, 4), tops=(1, 2), labels={1: BINARY}, recurrent_param=RECURRENT_PARAM)
def rnn(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """A plain recurrent net: tanh(W_o · h + b_o) with h = tanh(W_x · x + b + W_h · cont · h' (+ W_static · x_static)).

    h' is h of the step before. Learnable blobs: W_x, b, W_static where there is x_static, W_h, W_o, b_o.
    """
    p, outputs = layer.recurrent_param, layer.recurrent_param.num_output
    static, state = _split_bottoms(op, layer, bottoms, ("h",))
    terms = _input_terms(op, layer, bottoms[0], static, outputs)
    recurrent = layer.parameter((outputs, outputs), p.weight_filler)
    weight, bias = layer.parameter((outputs, outputs), p.weight_filler), layer.parameter((outputs,), p.bias_filler)

    def step(op: Builder, items: Values, state: Sequence[ir.Value | None], weights: Values) -> tuple[ir.Value, Values]:
        (term, cont), (hidden,), (recurrent, weight, bias) = items, state, weights
        if hidden is not None:
            term = op.Gemm(op.Mul(hidden, cont), recurrent, term, transB=1)
        hidden = op.Tanh(term)
        return op.Tanh(op.Gemm(hidden, weight, bias, transB=1)), (hidden,)

    return _over_steps(op, layer, terms, bottoms[1], state, [recurrent, weight, bias], step)


def _split_bottoms(
    op: Builder, layer: Layer, bottoms: Sequence[ir.Value], names: Sequence[str]
) -> tuple[ir.Value | None, list[ir.Value | None]]:
    """x_static (None where the layer has none) and the state before the first step, each of its parts N × num_output
    (None for zeros); NetError where the bottoms do not go together."""
    p, (x, cont, *others) = layer.recurrent_param, bottoms
    if p.num_output < 1:
        raise layer.error("num_output is missing or 0")
    exposed = len(names) if p.expose_hidden else 0
    if len(others) not in (exposed, exposed + 1) or layer.top_count != 1 + exposed:
        wanted = ", ".join(["x", "cont", "x_static where there is one", *names[:exposed]])
        raise layer.error(
            f"it has {len(bottoms)} bottoms and {layer.top_count} tops, but with expose_hidden"
            f" {str(p.expose_hidden).lower()} takes the bottoms {wanted}, and {1 + exposed} tops"
        )
    shape = op.shape(x)
    if len(shape) < 3 or shape[0] == 0:
        raise layer.misfit(
            0, shape, f": it must {'be steps × streams × …' if len(shape) < 3 else 'have 1 step or more'}"
        )
    layer.expect_shape(1, cont, shape[:2], "it tells for each step and stream whether the stream goes on")
    static = others[0] if len(others) > exposed else None
    if static is not None:
        shape_of_items = (shape[1], *op.shape(static)[1:])
        layer.expect_shape(2, static, shape_of_items, "it holds one item for each stream")
    state_shape = (1, shape[1], p.num_output)
    if not exposed:
        kept = [layer.state(index, (shape[1], p.num_output)) for index in range(len(names))]
        return static, kept
    first = len(bottoms) - exposed
    for index, value in enumerate(bottoms[first:], start=first):
        layer.expect_shape(index, value, state_shape, "it is the state before the first step")
    return static, [op.without_gradient(op.Squeeze(value, [0]), value) for value in bottoms[first:]]


def _input_terms(op: Builder, layer: Layer, x: ir.Value, static: ir.Value | None, rows: int) -> ir.Value:
    """W_x · x + b (+ W_static · x_static) of all steps: T × N × rows."""
    p, shape = layer.recurrent_param, op.shape(x)
    terms = _product(op, layer, op.reshape(x, [*shape[:2], _size(layer, shape[2:])]), rows)
    terms = op.Add(terms, layer.parameter((rows,), p.bias_filler))
    if static is None:
        return terms
    shape = op.shape(static)
    return op.Add(terms, _product(op, layer, op.reshape(static, [shape[0], _size(layer, shape[1:])]), rows))


def _product(op: Builder, layer: Layer, x: ir.Value, rows: int) -> ir.Value:
    weight = layer.parameter((rows, op.shape(x)[-1]), layer.recurrent_param.weight_filler)
    return op.MatMul(x, op.Transpose(weight, perm=[1, 0]))


def _size(layer: Layer, dims: Sequence[Dim]) -> int:
    return math.prod(layer.fixed(dims, "the dims of a step's input"))


def _over_steps(
    op: Builder,
    layer: Layer,
    terms: ir.Value,
    cont: ir.Value,
    state: Sequence[ir.Value | None],
    weights: Sequence[ir.Value],
    step: Step,
) -> tuple[ir.Value, ...]:
    """The tops: the outputs of all steps as one blob, and the last state where it is exposed.

    The steps are unrolled, which every runtime takes; where only the running graph knows their number, ONNX's Scan
    goes over them.
    """
    # of what Caffe's unrolled net reads it has the data, but not the diff
    goes_on = op.without_gradient(op.Unsqueeze(cont, [2]), cont)
    if isinstance(op.shape(terms)[0], int):
        outputs = []
        for term, going in zip(_split(op, terms), _split(op, goes_on), strict=True):
            output, state = step(op, [term, going], state, weights)
            outputs.append(op.Unsqueeze(output, [0]))
        tops = op.Concat(*outputs, axis=0)
    else:
        from caffe_tools.gradient.scan import scan

        if None in state:
            state = [_zeros(op, terms, layer.recurrent_param.num_output)] * len(state)
        tops, state = scan(op, [terms, goes_on], state, weights, step)
    if layer.recurrent_param.expose_hidden:
        return (tops, *(op.without_gradient(op.Unsqueeze(value, [0]), value) for value in state))
    for index, value in enumerate(state):
        layer.keep(index, value)
    return (tops,)


def _split(op: Builder, value: ir.Value) -> list[ir.Value]:
    """T × N × … as T values N × …"""
    count = op.shape(value)[0]
    parts = op.Split(value, [1] * count, axis=0, outputs=count) if count > 1 else (value,)
    return [op.Squeeze(part, [0]) for part in parts]


def _zeros(op: Builder, terms: ir.Value, outputs: int) -> ir.Value:
    """A state of zeros for the streams of ``terms``."""
    shape = op.Concat(op.dims(terms, [1]), op.constant([outputs]), axis=0)
    zeros = op.Expand(op.constant(0.0, terms.dtype.numpy()), shape)
    zeros.shape = ir.Shape([op.shape(terms)[1], outputs])
    return zeros
