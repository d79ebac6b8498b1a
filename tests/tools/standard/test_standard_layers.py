"""Corners of the standard layers that no case of a real Caffe shows, read from Caffe's sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nets import dims, fill_inputs, inputs, layer, net_of
from one_layer import top_of


def shape_of(type_, shape, rest):
    return net_of(inputs(x=shape) + layer("it", type_, "x", "y", rest)).blobs["y"].shape


# --- moving elements


@pytest.mark.parametrize(
    ("axis", "end_axis", "shape"),
    [(1, -1, (2, 60)), (0, 1, (6, 4, 5)), (-2, -1, (2, 3, 20)), (2, 2, (2, 3, 4, 5)), (2, 1, (2, 3, 1, 4, 5))],
)
def test_flatten_makes_one_axis_of_those_between_its_ends_and_a_new_one_of_none(axis, end_axis, shape):
    assert shape_of("Flatten", (2, 3, 4, 5), f"flatten_param {{ axis: {axis} end_axis: {end_axis} }}") == shape


def test_flatten_keeps_the_row_length_of_an_empty_batch():
    assert shape_of("Flatten", (0, 3, 4), "") == (0, 12)


@pytest.mark.parametrize(
    ("param", "shape"),
    [
        ("shape { dim: 0 dim: -1 }", (2, 12)),
        ("shape { dim: [0, 0, 2, 2] }", (2, 3, 2, 2)),
        ("shape { dim: [-1] }", (24,)),
        ("shape { dim: [6, 4] }", (6, 4)),
        ("axis: 1 shape { dim: [2, 6] }", (2, 2, 6)),
        ("axis: 1 num_axes: 1 shape { dim: [1, -1] }", (2, 1, 3, 4)),
        ("axis: 1 num_axes: 0 shape { dim: 1 }", (2, 1, 3, 4)),
        ("axis: -1 shape { dim: 1 }", (2, 3, 4, 1)),
        ("axis: -2 num_axes: 1 shape { dim: [2, 2] }", (2, 3, 2, 2)),
    ],
)
def test_reshape_replaces_a_range_of_axes(param, shape):
    assert shape_of("Reshape", (2, 3, 4), f"reshape_param {{ {param} }}") == shape


@pytest.mark.parametrize("type_", ["Concat", "Slice", "Split"])
def test_a_layer_that_has_nothing_to_do_copies_its_bottom(type_):
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(top_of(type_, {"x": x}), x)


@pytest.mark.parametrize(("param", "shape"), [("concat_dim: 0", (4, 3)), ("axis: -1", (2, 6)), ("", (2, 6))])
def test_concat_takes_the_older_concat_dim_and_negative_axes(param, shape):
    bottoms = {"x": np.zeros((2, 3)), "z": np.zeros((2, 3))}
    assert top_of("Concat", bottoms, f"concat_param {{ {param} }}").shape == shape


def test_slice_cuts_at_its_points_or_into_equal_parts():
    x = inputs(x=(2, 6))
    for param, widths in (("slice_point: 1 slice_point: 4", [1, 3, 2]), ("", [2, 2, 2]), ("slice_dim: 1", [2, 2, 2])):
        net = net_of(x + layer("it", "Slice", "x", "a b c", f"slice_param {{ {param} }}"))
        assert [net.blobs[name].shape[1] for name in "abc"] == widths


def test_silence_sends_zeros_down():
    net = net_of("force_backward: true " + inputs(x=(2,)) + layer("it", "Silence", "x"))
    net.blobs["x"].diff[...] = 5
    assert not net.backward()["x"].any()


# --- products, sums, powers


@pytest.mark.parametrize(
    ("axis", "weight", "shape"), [(0, (5, 24), (5,)), (1, (5, 12), (2, 5)), (-1, (5, 4), (2, 3, 5))]
)
def test_inner_product_flattens_from_its_axis_on(axis, weight, shape):
    rest = f"inner_product_param {{ num_output: 5 axis: {axis} }}"
    net = net_of(inputs(x=(2, 3, 4)) + layer("it", "InnerProduct", "x", "y", rest))
    assert (net.params["it"][0].shape, net.blobs["y"].shape) == (weight, shape)


def test_inner_product_serves_an_empty_batch():
    rest = "inner_product_param { num_output: 5 }"
    assert top_of("InnerProduct", {"x": np.zeros((0, 3, 4))}, rest).shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)])
def test_a_scale_of_no_axes_is_one_number(shape):
    net = net_of(inputs(x=shape) + layer("it", "Scale", "x", "y", "scale_param { num_axes: 0 bias_term: true }"))
    factor, bias = net.params["it"]
    assert factor.shape == bias.shape == ()
    factor.data[...], bias.data[...] = 3, 1
    assert (net.forward(x=np.ones(shape))["y"] == 4).all()


def test_a_scale_by_another_blob_may_have_a_learnable_bias():
    x, factor = np.ones((2, 3, 4)), np.arange(3)
    net = net_of(inputs(x=x.shape, z=(3,)) + layer("it", "Scale", "x z", "y", "scale_param { bias_term: true }"))
    net.params["it"][0].data[...] = [1, 2, 3]
    np.testing.assert_array_equal(net.forward(x=x, z=factor)["y"][0, :, 0], [1, 3, 5])


def test_a_scale_by_a_scalar_blob_needs_no_axis():
    assert (top_of("Scale", {"x": np.ones(3), "z": np.array(2.0)}) == 2).all()


def test_eltwise_passes_over_the_coefficients_of_a_maximum():
    rest = "eltwise_param { operation: MAX coeff: 5 coeff: 5 }"
    np.testing.assert_array_equal(top_of("Eltwise", {"x": [1, 4], "z": [3, 2]}, rest), [3, 4])


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("power: 0", 1),
        ("scale: 0 shift: 3 power: 2", 9),
        ("scale: 0 shift: 0 power: -1", math.inf),
        ("scale: 0 shift: -2 power: 0.5", math.nan),
    ],
)
def test_power_without_power_or_scale_is_a_constant_as_in_c(param, value):
    np.testing.assert_array_equal(top_of("Power", {"x": [1, -2, 0]}, f"power_param {{ {param} }}"), np.full(3, value))


def test_power_without_power_or_scale_sends_zeros_down():
    net = net_of("force_backward: true " + inputs(x=(2,)) + layer("it", "Power", "x", "y", "power_param { scale: 0 }"))
    net.forward()
    assert not net.backward(y=np.ones(2))["x"].any()


def test_prelu_starts_with_a_slope_of_a_quarter():
    np.testing.assert_array_equal(top_of("PReLU", {"x": [[-4, 4]]}), [[-1, 4]])


# --- pooling against Caffe's loops


def pooled_size(size, kernel, stride, pad, round_up):
    steps = (size + 2 * pad - kernel) / stride
    pooled = (math.ceil(steps) if round_up else math.floor(steps)) + 1
    return pooled - 1 if pad and (pooled - 1) * stride >= size + pad else pooled


def pooled_as_in_caffe(x, pool, kernel, stride, pad, sizes):
    """pooling_layer.cpp, for one image of one channel."""
    y = np.zeros(sizes, np.float32)
    for place in np.ndindex(*sizes):
        starts = [i * stride - pad for i in place]
        padded_ends = [min(s + kernel, n + pad) for s, n in zip(starts, x.shape, strict=True)]
        area = math.prod(end - start for start, end in zip(starts, padded_ends, strict=True))
        rows, columns = (slice(max(s, 0), min(e, n)) for s, e, n in zip(starts, padded_ends, x.shape, strict=True))
        window = x[rows, columns]
        if pool == "MAX":
            y[place] = window.max(initial=-np.finfo(np.float32).max)
        else:
            y[place] = window.sum() / area if area else np.nan
    return y


@settings(max_examples=40)
@given(st.data())
def test_pooling_has_caffes_size_borders_and_divisor(data):
    draw = data.draw
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pad, size = draw(st.integers(0, kernel - 1)), (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    pool, round_up = draw(st.sampled_from(["MAX", "AVE"])), draw(st.booleans())
    sizes = [pooled_size(n, kernel, stride, pad, round_up) for n in size]
    assume(min(sizes) > 0)
    x = np.random.default_rng(0).normal(size=(1, 1, *size)).astype(np.float32)
    rest = f"pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad}"
    rest += " }" if round_up else " round_mode: FLOOR }"
    wanted = pooled_as_in_caffe(x[0, 0], pool, kernel, stride, pad, sizes)
    np.testing.assert_allclose(top_of("Pooling", {"x": x}, rest)[0, 0], wanted, rtol=1e-5, atol=1e-6)


def test_a_window_may_be_larger_than_the_image():
    rest = "pooling_param { kernel_size: 3 stride: 2 }"
    np.testing.assert_array_equal(top_of("Pooling", {"x": np.arange(4).reshape(1, 1, 2, 2)}, rest), [[[[3]]]])


# --- losses and accuracy


def test_the_labels_of_accuracy_may_have_any_shape_of_their_count():
    scores = np.eye(4)[[0, 1, 1, 3]]
    assert top_of("Accuracy", {"x": scores, "t": np.arange(4).reshape(2, 2)}) == 0.75


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1), (4, 1, 1, 1)])
@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss"])
def test_the_labels_of_a_loss_may_have_axes_of_1_besides(type_, shape):
    scores = np.full((4, 2), 0.5)
    labels = np.array([0, 1, 0, 1])
    assert top_of(type_, {"x": scores, "t": labels.reshape(shape)}) == top_of(type_, {"x": scores, "t": labels})


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_an_empty_batch_costs_nothing(type_):
    labels = np.zeros((0,) if type_ == "SoftmaxWithLoss" else (0, 3))
    assert top_of(type_, {"x": np.zeros((0, 3)), "t": labels}) == 0


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_the_second_top_of_a_loss_has_the_probabilities(type_):
    shape = (2,) if type_ == "SoftmaxWithLoss" else (2, 3)
    net = net_of(inputs(x=(2, 3), t=shape) + layer("it", type_, "x t", "loss p"))
    assert net.outputs == ["loss", "p"] and net.placed[-1].loss_weights == [1, 0]
    probability = 1 / 3 if type_ == "SoftmaxWithLoss" else 0.5
    np.testing.assert_allclose(net.forward()["p"], np.full((2, 3), probability), rtol=1e-6)


def test_fractional_labels_are_cut_toward_zero():
    scores = np.random.default_rng(0).normal(size=(3, 4))
    one, other = (top_of("SoftmaxWithLoss", {"x": scores, "t": labels}) for labels in ([0.9, -0.9, 3.5], [0, 0, 3]))
    assert one == other


# --- data


def test_the_older_dims_of_dummy_data_are_given_once_or_for_each_top():
    param = "num: 2 channels: 3 channels: 4 height: 5 width: 6"
    net = net_of(layer("it", "DummyData", "", "a b", f"dummy_data_param {{ {param} }}"))
    assert (net.blobs["a"].shape, net.blobs["b"].shape) == ((2, 3, 5, 6), (2, 4, 5, 6))


def test_one_shape_may_serve_all_tops_of_an_input_layer():
    net = net_of(layer("it", "Input", "", "a b", f"input_param {{ shape {{ {dims((2, 3))} }} }}"))
    assert net.inputs == ["a", "b"] and net.blobs["b"].shape == (2, 3)


def test_a_0_d_blob_passes_through_layers_that_act_on_elements():
    text = inputs(x=()) + layer("r", "ReLU", "x", "r") + layer("s", "Sigmoid", "r", "s") + layer("p", "Power", "s", "p")
    assert net_of(text).forward(x=np.array(-3.0))["p"] == 0.5


def test_convolution_acts_on_any_number_of_spatial_axes():
    for shape, top in (((2, 3, 9), (2, 4, 4)), ((1, 3, 5, 6, 7), (1, 4, 2, 2, 3))):
        rest = "convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: 'xavier' } }"
        net = net_of(inputs(x=shape) + layer("it", "Convolution", "x", "y", rest))
        fill_inputs(net)
        assert net.forward()["y"].shape == top
