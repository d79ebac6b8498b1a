"""The graph builder: constants, shapes known at once, symbolic dims, names, and errors that say what does not fit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_tools.errors import GraphError
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import same_count
from caffe_tools.graph.session import make_session


def evaluate(op, value, **feeds):
    op.output(value, "result")
    op.remove_unused()
    wanted = names(op.graph.inputs)
    return make_session(op.graph).run(["result"], {name: array for name, array in feeds.items() if name in wanted})[0]


def names(values):
    return [value.name for value in values]


# Values --------------------------------------------------------------------------------------------------------------


def test_a_node_knows_its_shape_and_dtype_at_once():
    op = Builder()
    y = op.MatMul(op.input("x", [2, 3]), np.ones((3, 5)))
    assert op.shape(y) == (2, 5)
    assert y.dtype == ir.DataType.FLOAT


def test_several_outputs_come_as_a_tuple():
    op = Builder()
    parts = op.Split(op.input("x", [2, 6]), num_outputs=3, axis=1, outputs=3)
    assert [op.shape(part) for part in parts] == [(2, 2)] * 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_becomes_a_constant_of_the_dtype_of_what_stands_beside_it(dtype):
    op = Builder(float_type=dtype)
    assert op.Add(op.input("x", [2]), 0.5).dtype.numpy() == dtype
    assert op.Add(op.input("n", [2], np.int64), 1).dtype == ir.DataType.INT64


def test_a_list_becomes_a_constant_of_the_dtype_that_the_operator_asks_for():
    op = Builder()
    op.ReduceSum(op.input("x", [2, 3]), [1])
    (axes,) = op.graph.initializers.values()
    assert axes.dtype == ir.DataType.INT64


def test_equal_constants_are_stored_once_and_others_apart():
    op = Builder()
    x = op.input("x", [2])
    op.Add(op.Mul(x, 2.0), 2.0)
    assert len(op.graph.initializers) == 1
    op.Add(x, [2.0])  # of another shape
    op.Add(op.input("n", [2], np.int64), 2)  # of another dtype
    assert len(op.graph.initializers) == 3


def test_negative_zero_is_another_constant_than_zero():
    op = Builder()
    assert op.constant(0.0) is not op.constant(-0.0)
    assert op.constant(0.0) is op.constant(0.0)


def test_an_input_that_is_left_out_stays_out():
    op = Builder()
    y = op.Clip(op.input("x", [2]), None, 0.5)
    np.testing.assert_array_equal(evaluate(op, y, x=np.array([-3, 3], np.float32)), np.float32([-3, 0.5]))


def test_attributes_that_are_none_are_left_out():
    op = Builder()
    node = op.ReduceSum(op.input("x", [2]), keepdims=None).producer()
    assert "keepdims" not in node.attributes


def test_stored_arrays_are_not_copied():
    op, array = Builder(), np.ones((2, 3), np.float32)
    assert np.shares_memory(op.initializer("w", array).const_value.numpy(), array)


# Dims ----------------------------------------------------------------------------------------------------------------


def test_symbolic_dims_are_carried_through():
    op = Builder()
    x = op.input("x", ["batch", 3, 4])
    assert op.shape(op.Transpose(op.Relu(x), perm=[2, 0, 1])) == (4, "batch", 3)
    assert op.shape(op.Where(op.Greater(x, 0), x, 0)) == ("batch", 3, 4)
    assert op.shape(op.Max(x, op.input("y", ["batch", 1, 4]))) == ("batch", 3, 4)


def test_dims_are_a_constant_where_all_are_known_and_computed_where_one_is_not():
    op = Builder()
    x = op.input("x", ["batch", 3, 4])
    assert op.is_constant(op.dims(x, [1, 2]))
    assert not op.is_constant(op.dims(x, [0, 2]))
    np.testing.assert_array_equal(evaluate(op, op.dims(x, [2, 0]), x=np.zeros((7, 3, 4), np.float32)), [4, 7])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_count_is_the_product_of_the_dims(shape, draw):
    axes = draw.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    symbolic = draw.draw(st.integers(0, len(shape) - 1))
    op = Builder()
    x = op.input("x", [f"d{i}" if i == symbolic else dim for i, dim in enumerate(shape)])
    found = evaluate(op, op.count(x, sorted(axes)), x=np.zeros(shape, np.float32))
    assert found == np.prod([shape[axis] for axis in axes]) and found.dtype == np.float32


def test_count_of_a_scalar_is_1():
    op = Builder()
    assert op.count(op.input("x", [])).const_value.numpy() == 1


@pytest.mark.parametrize("shape", [(), (2, 3), (0, 3)])
def test_zeros_have_the_shape_and_dtype_of_their_like(shape):
    op = Builder()
    x = op.input("x", shape)
    zeros = op.zeros(x)
    assert (op.shape(zeros), zeros.dtype) == (shape, x.dtype)
    assert not evaluate(op, zeros, x=np.ones(shape, np.float32)).any()


# Reshape -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, dims, expected",
    [
        ((2, 3, 4), (6, 4), (6, 4)),
        ((2, 3, 4), (2, -1), (2, 12)),
        (("batch", 3, 4), ("batch", -1), ("batch", 12)),
        (("batch", 3, 4), (-1, 4), ("batch*3", 4)),
        (("batch", 3, 4), (3, "batch", 4), (3, "batch", 4)),
        (("batch", 3, 4), ("batch", 1, 12), ("batch", 1, 12)),
        (("batch", 3, "width"), ("batch", -1), ("batch", "width*3/1")),
        ((0, 3), (3, 0), (3, 0)),
        (("batch", 0), ("batch", 0, 3), ("batch", 0, 3)),
        ((), (1, 1), (1, 1)),
    ],
)
def test_a_reshape_keeps_the_elements_and_knows_its_dims(source, dims, expected):
    op = Builder()
    y = op.reshape(op.input("x", source), dims)
    known = [dim for dim in op.shape(y) if isinstance(dim, int)]
    assert known == [dim for dim in expected if isinstance(dim, int)]
    x = np.random.default_rng(0).normal(size=[{"batch": 5, "width": 2}.get(dim, dim) for dim in source])
    result = evaluate(op, y, x=x.astype(np.float32))
    np.testing.assert_array_equal(result.reshape(-1), x.astype(np.float32).reshape(-1))
    assert all(have == want for have, want in zip(result.shape, expected, strict=True) if isinstance(want, int))


def test_a_reshape_to_the_same_shape_is_the_value_itself():
    op = Builder()
    x = op.input("x", ["batch", 3])
    assert op.reshape(x, ["batch", 3]) is x


@pytest.mark.parametrize("source, dims", [((2, 3), (4, -1)), ((2, 3), ("batch", -1)), ((2, 3), (0, -1))])
def test_a_reshape_that_cannot_be_is_an_error_with_both_shapes(source, dims):
    op = Builder()
    with pytest.raises(GraphError, match="cannot reshape "):
        op.reshape(op.input("x", source), dims)


def test_counts_are_compared_for_every_value_of_the_symbols():
    assert same_count(("batch", 6), (2, "batch", 3))
    assert not same_count(("batch", 6), (6,))
    assert not same_count(("batch",), ("width",))


# Names ---------------------------------------------------------------------------------------------------------------


def test_a_taken_name_gets_a_number():
    op = Builder()
    assert names([op.input("x", [1]), op.input("x", [1]), op.input("x", [1])]) == ["x", "x_2", "x_3"]


def test_a_reserved_name_waits_for_its_value():
    op = Builder()
    op.reserve(["constant", "x"])
    assert op.constant(1.0).name == "constant_2"
    assert op.initializer("x", np.zeros(1, np.float32)).name == "x_2"
    x = op.input("x", [1])
    y = op.Neg(x)
    op.rename(y, "constant")
    assert names([x, y]) == ["x", "constant"]


def test_a_reserved_name_is_given_once():
    op = Builder()
    op.reserve(["x"])
    assert names([op.input("x", [1]), op.input("x", [1])]) == ["x", "x_2"]


def test_nodes_bear_their_layers_name():
    op = Builder()
    x = op.input("x", [1])
    with op.layer("conv 1"):
        inner = op.Relu(x)
        with op.layer("other", is_gradient=True):
            gradient = op.Neg(inner)
    outer = op.Neg(inner)
    nodes = [value.producer() for value in (inner, gradient, outer)]
    assert [node.name for node in nodes] == ["conv 1/Relu", "other/Neg", "Neg"]
    assert [dict(node.metadata_props) for node in nodes] == [
        {"layer": "conv 1"},
        {"layer": "other", "gradient": "true"},
        {},
    ]


def test_an_output_gets_its_name_and_a_second_one_of_the_same_value_a_copy():
    op = Builder()
    y = op.Relu(op.input("x", [1]))
    assert op.output(y, "y") is y
    assert op.output(y, "z") is not y
    assert names(op.graph.outputs) == ["y", "z"]


def test_a_graph_input_as_output_is_a_copy():
    op = Builder()
    x = op.input("x", [1])
    assert names([x, op.output(x, "y")]) == ["x", "y"]


# What nobody needs ---------------------------------------------------------------------------------------------------


def test_what_no_output_needs_is_removed():
    op = Builder()
    x, y = op.input("x", [2]), op.input("y", [2])
    op.Mul(y, 3.0)
    op.output(op.Add(x, 1.0), "z")
    op.remove_unused()
    assert names(op.graph.inputs) == ["x"]
    assert [node.op_type for node in op.graph] == ["Add"]
    assert len(op.graph.initializers) == 1


# Errors --------------------------------------------------------------------------------------------------------------


def test_an_unknown_operator_is_named_with_the_opset():
    with pytest.raises(GraphError, match="ONNX opset 18 has no operator 'Softmacks'"):
        Builder().Softmacks(1.0)


def test_a_small_attribute_is_no_operator():
    with pytest.raises(AttributeError, match="the graph builder has no attribute 'relu'"):
        Builder().relu  # noqa: B018


def test_inputs_that_do_not_fit_are_an_error_of_one_line_with_their_shapes():
    op = Builder()
    with pytest.raises(GraphError, match=r"^MatMul does not take a \(2, 3\), b \(4, 5\): [^\n]+$"):
        op.MatMul(op.input("a", [2, 3]), op.input("b", [4, 5]))


def test_a_tuple_of_values_is_no_input():
    op = Builder()
    with pytest.raises(GraphError, match="Neg gets 2 values as one input"):
        op.Neg(op.Split(op.input("x", [4]), num_outputs=2, outputs=2))
