"""Convolution, Deconvolution and Im2col over any number of axes, in groups, dilated, against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from nets import inputs, layer, net_of
from one_layer import net_over
from open_dims import tops_with_open_dims
from tables import rows


def convolution_net(type_, x, param):
    """One layer of that type, its weight and bias drawn."""
    net = net_over(type_, {"x": x}, f"convolution_param {{ {param} }}")
    random = np.random.default_rng(5)
    for blob in net.params.get("layer", []):
        blob.data[...] = random.normal(size=blob.shape)
    return net


def windows(x, kernel, strides, pads, dilations):
    """The windows of x (N × C × size…) as N × C × kernel… × places…, element by element."""
    rank = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in pads]])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    places = [(s - r) // stride + 1 for s, r, stride in zip(padded.shape[2:], reach, strides, strict=True)]
    result = np.zeros((*x.shape[:2], *kernel, *places), x.dtype)
    for k in np.ndindex(*kernel):
        for place in np.ndindex(*places):
            at = tuple(place[a] * strides[a] + k[a] * dilations[a] for a in range(rank))
            result[(slice(None), slice(None), *k, *place)] = padded[(slice(None), slice(None), *at)]
    return result


def convolved(x, weight, bias, group, **window):
    found = windows(x, weight.shape[2:], **window)
    rank = weight.ndim - 2
    parts = []
    for columns, w in zip(np.split(found, group, axis=1), np.split(weight, group), strict=True):
        parts.append(np.tensordot(columns, w, (range(1, rank + 2), range(1, rank + 2))))
    return np.moveaxis(np.concatenate(parts, axis=-1) + bias, -1, 1)


@st.composite
def convolutions(draw):
    """A blob, and a convolution_param over 1 to 3 axes that fits it."""
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    numbers = lambda least, most: draw(st.lists(st.integers(least, most), min_size=rank, max_size=rank))  # noqa: E731
    kernel, strides, pads, dilations = numbers(1, 3), numbers(1, 3), numbers(0, 2), numbers(1, 2)
    size = numbers(1, 5)
    assume(all(s + 2 * p >= (k - 1) * d + 1 for s, p, k, d in zip(size, pads, kernel, dilations, strict=True)))
    x = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(2, 2 * group, *size)).astype(np.float32)
    window = {"strides": strides, "pads": pads, "dilations": dilations}
    lists = {"kernel_size": kernel, "stride": strides, "pad": pads, "dilation": dilations}
    text = " ".join(f"{name}: {value}" for name, values in lists.items() for value in values)
    return x, kernel, group, window, f"num_output: {3 * group} group: {group} {text}"


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_a_convolution_is_the_sum_over_its_windows(drawn):
    x, _, group, window, param = drawn
    net = convolution_net("Convolution", x, param)
    weight, bias = (blob.data for blob in net.params["layer"])
    wanted = convolved(x.astype(np.float64), weight.astype(np.float64), bias, group, **window)
    np.testing.assert_allclose(net.forward()["top"], wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_a_deconvolution_is_the_gradient_of_the_convolution_with_its_weight(drawn):
    x, kernel, group, window, param = drawn
    outputs = 3 * group
    grown = [
        stride * (size - 1) + (k - 1) * dilation + 1 - 2 * pad
        for size, k, stride, pad, dilation in zip(x.shape[2:], kernel, *window.values(), strict=True)
    ]
    assume(min(grown) > 0)
    net = convolution_net("Deconvolution", x, param)
    weight, bias = net.params["layer"]
    assert weight.shape == (2 * group, outputs // group, *kernel)
    y = net.forward()["top"]
    assert y.shape == (2, outputs, *grown)
    # ⟨deconvolved(x), z⟩ = ⟨x, convolved(z)⟩ for any z
    z = np.random.default_rng(6).normal(size=y.shape)
    back = convolved(z, weight.data.astype(np.float64), 0, group, **window)
    without_bias = y - bias.data.reshape(-1, *[1] * len(kernel))
    assert (without_bias * z).sum() == pytest.approx((x * back).sum(), rel=1e-3, abs=1e-3)
    np.testing.assert_allclose(net.backward(top=z)["x"], back, rtol=1e-3, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_im2col_lays_out_the_windows_as_channels(drawn):
    x, kernel, _, window, param = drawn
    found = windows(x, kernel, **window)
    wanted = found.reshape(2, x.shape[1] * math.prod(kernel), *found.shape[2 + len(kernel) :])
    np.testing.assert_array_equal(convolution_net("Im2col", x, param).forward()["top"], wanted)


@pytest.mark.parametrize("type_", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize("axis", [0, 2])
def test_the_axes_before_the_channels_are_all_batch(type_, axis):
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    x = x[0, 0] if axis == 0 else x
    param = "num_output: 3 kernel_size: 3 pad: 1 stride: 2"
    found = convolution_net(type_, x, f"{param} axis: {axis}").forward()["top"]
    wanted = convolution_net(type_, x.reshape(-1, *x.shape[-3:]), param).forward()["top"]
    np.testing.assert_array_equal(found, wanted.reshape(*x.shape[:axis], *wanted.shape[1:]))


@pytest.mark.parametrize("type_", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_batch_and_image_size_may_be_open(type_, lead):
    x = np.random.default_rng(2).normal(size=(3, *lead, 2, 7, 5)).astype(np.float32)
    param = f"num_output: 3 kernel_size: 3 pad: 1 axis: {len(lead) + 1}"
    net = convolution_net(type_, x, param)
    dims = ("batch", *lead, 2, "height", "width")
    (found,) = tops_with_open_dims(net, {"x": dims}, {"x": x})
    np.testing.assert_allclose(found, net.forward()["top"], rtol=1e-5, atol=1e-6)


def test_a_bilinear_deconvolution_in_groups_enlarges_an_image():
    x = np.tile(np.arange(6.0), (1, 2, 6, 1)).astype(np.float32)
    param = 'num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" }'
    text = inputs(x=x.shape) + layer("up", "Deconvolution", "x", "y", f"convolution_param {{ {param} }}")
    y = net_of(text, "TEST").forward(x=x)["y"]
    assert y.shape == (1, 2, 12, 12)
    np.testing.assert_allclose(y[0, 0, 5, 1:-1], np.arange(1, 11) / 2 - 0.25)


def test_several_bottoms_of_a_deconvolution_share_its_weight():
    text = inputs(a=(1, 2, 3, 3), b=(1, 2, 3, 3)) + layer(
        "up", "Deconvolution", "a b", "y z", "convolution_param { num_output: 1 kernel_size: 2 bias_term: false }"
    )
    net = net_of("force_backward: true " + text, "TEST")
    net.params["up"][0].data[...] = 1
    one = np.ones((1, 2, 3, 3), np.float32)
    tops = net.forward(a=one, b=2 * one)
    np.testing.assert_array_equal(tops["z"], 2 * tops["y"])
    net.backward(y=np.ones((1, 1, 4, 4)), z=np.ones((1, 1, 4, 4)))
    np.testing.assert_array_equal(net.params["up"][0].diff, np.full((2, 1, 2, 2), 27))


@pytest.mark.parametrize(
    ("type_", "param", "message"),
    rows(
        """
        Deconvolution | kernel_size: 3 | num_output is missing or 0
        Deconvolution | num_output: 3 kernel_size: 3 group: 2 | group 2 must divide the 6 channels of the bottom
        Deconvolution | num_output: 3 kernel_size: 1 pad: 3 | a pad of 3 leaves nothing of axis 2 of its top
        Deconvolution | num_output: 3 kernel_size: 3 axis: 3 | needs spatial axes behind the channels on axis 3
        Im2col | kernel_size: 6 | its kernel reaches over 6 elements, but axis 2 of bottom 'x' has 5
        Im2col | pad: 1 | kernel_size is missing
        """
    ),
)
def test_what_caffe_could_not_build_is_refused(type_, param, message):
    with pytest.raises(NetError, match=message):
        convolution_net(type_, np.zeros((1, 6, 5, 4)), param)
