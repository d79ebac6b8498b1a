"""LRN against its definition, in both regions, for windows wider than the blob, and with open dims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import net_over
from open_dims import tops_with_open_dims


def lrn_net(x, param):
    return net_over("LRN", {"x": x}, f"lrn_param {{ {param} }}")


def oracle(x, size, alpha, beta, k, within):
    """x · (k + alpha · mean of squares)^-beta, element by element, zeros beyond the edges."""
    x = x.astype(np.float64)
    half = size // 2
    pads = [(0, 0), (0, 0), (half, half), (half, half)] if within else [(0, 0), (half, half), (0, 0), (0, 0)]
    squares = np.pad(x**2, pads)
    mean = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        n, c, h, w = index
        window = squares[n, c, h : h + size, w : w + size] if within else squares[n, c : c + size, h, w]
        mean[index] = window.sum() / (size**2 if within else size)
    return x * ((1 if within else k) + alpha * mean) ** -beta


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 2), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)]),
    size=st.sampled_from([1, 3, 5, 7]),
    alpha=st.floats(0, 2, width=32),
    beta=st.floats(0, 2, width=32),
    k=st.floats(0.5, 3, width=32),
    within=st.booleans(),
)
def test_lrn_is_its_definition(shape, size, alpha, beta, k, within):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    region = "WITHIN_CHANNEL" if within else "ACROSS_CHANNELS"
    net = lrn_net(x, f"local_size: {size} alpha: {alpha!r} beta: {beta!r} k: {k!r} norm_region: {region}")
    np.testing.assert_allclose(net.forward()["top"], oracle(x, size, alpha, beta, k, within), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_the_gradient_is_that_of_the_definition(region):
    x = np.random.default_rng(2).normal(size=(1, 4, 3, 3)).astype(np.float32)
    dy = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    net = lrn_net(x, f"local_size: 3 alpha: 0.7 beta: 0.6 k: 2 norm_region: {region}")
    net.forward()
    found = net.backward(top=dy)["x"]
    within = region == "WITHIN_CHANNEL"
    for index in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        high, low = (oracle(x + s, 3, 0.7, 0.6, 2, within) for s in (step, -step))
        assert found[index] == pytest.approx(((high - low) * dy).sum() / 2e-5, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_batch_and_image_size_may_be_open(region):
    x = np.random.default_rng(4).normal(size=(3, 5, 6, 4)).astype(np.float32)
    net = lrn_net(x[:1, :, :3, :3], f"local_size: 3 norm_region: {region}")
    (found,) = tops_with_open_dims(net, {"x": ("batch", 5, "height", "width")}, {"x": x})
    np.testing.assert_allclose(found, oracle(x, 3, 1, 0.75, 1, region == "WITHIN_CHANNEL"), rtol=1e-5, atol=1e-6)


def test_an_even_window_is_refused():
    with pytest.raises(NetError, match="local_size 4 must be odd"):
        lrn_net(np.zeros((1, 5, 2, 2)), "local_size: 4")


def test_a_negative_exponent_is_refused():
    with pytest.raises(NetError, match="alpha 1 and beta -1 must be 0 or more"):
        lrn_net(np.zeros((1, 5, 2, 2)), "beta: -1")


def test_other_than_four_axes_are_refused():
    with pytest.raises(NetError, match="bottom 'x' has the shape 2×5: it takes 4 axes"):
        lrn_net(np.zeros((2, 5)), "")
