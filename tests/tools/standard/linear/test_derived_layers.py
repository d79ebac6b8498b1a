"""The small layers of Caffe's derivatives: depthwise convolutions, ReLU6, ShuffleChannel, Axpy, Interp."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import assert_transposed, diffs_of, exported_tops, net_over, top_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, 5, 7)).astype(np.float32)


# Depthwise convolutions ----------------------------------------------------------------------------------------------


def depthwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A 3 × 3 kernel of its own over each channel, stride 2, pad 1."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
    y = np.empty((*x.shape[:2], height, width))
    for h in range(height):
        for w in range(width):
            window = padded[:, :, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
            y[:, :, h, w] = (window * weight[:, 0]).sum((2, 3)) + bias
    return y


@pytest.mark.parametrize("type_, group", [("ConvolutionDepthwise", ""), ("DepthwiseConvolution", "group: 6")])
def test_each_channel_has_a_kernel_of_its_own(type_, group):
    text = f"convolution_param {{ num_output: 6 {group} kernel_size: 3 stride: 2 pad: 1 }}"
    net = net_over(type_, {"x": X}, text)
    weight, bias = net.params["layer"]
    assert weight.shape == (6, 1, 3, 3)
    weight.data[...], bias.data[...] = RANDOM.normal(size=weight.shape), RANDOM.normal(size=6)
    np.testing.assert_allclose(net.forward()["top"], depthwise(X, weight.data, bias.data), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(exported_tops(net, {"x": X})["top"], net.blobs["top"].data)
    assert_transposed(net, "x")


def test_a_depthwise_convolution_cannot_change_the_number_of_channels():
    with pytest.raises(NetError, match="num_output 12 must be the number of the bottom's channels, 6"):
        net_over("ConvolutionDepthwise", {"x": X}, "convolution_param { num_output: 12 kernel_size: 3 }")


# ReLU6 ---------------------------------------------------------------------------------------------------------------


def test_relu6_stops_at_6_and_passes_the_gradient_between_its_ends_alone():
    x = np.array([[-1, 0, 3, 6, 7]], np.float32)
    net = net_over("ReLU6", {"x": x})
    np.testing.assert_array_equal(net.forward()["top"], [[0, 0, 3, 6, 6]])
    np.testing.assert_array_equal(diffs_of(net, top=np.full((1, 5), 2.0))["x"], [[0, 0, 2, 0, 0]])


# ShuffleChannel ------------------------------------------------------------------------------------------------------


def test_channels_are_dealt_out_to_the_groups():
    net = net_over("ShuffleChannel", {"x": X}, "shuffle_channel_param { group: 3 }")
    np.testing.assert_array_equal(net.forward()["top"], X[:, [0, 2, 4, 1, 3, 5]])
    more = np.concatenate([X, -X])
    np.testing.assert_array_equal(exported_tops(net, {"x": more})["top"], more[:, [0, 2, 4, 1, 3, 5]])
    assert_transposed(net, "x")


def test_groups_must_divide_the_channels():
    with pytest.raises(NetError, match="group 4 must divide the 6 channels"):
        top_of("ShuffleChannel", {"x": X}, "shuffle_channel_param { group: 4 }")


# Axpy ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [(2, 6), (2, 6, 1, 1)])
def test_axpy_scales_channels_and_adds(form):
    bottoms = {"scale": RANDOM.normal(size=form).astype(np.float32), "x": X, "y": X[::-1].copy()}
    net = net_over("Axpy", bottoms)
    wanted = bottoms["scale"].reshape(2, 6, 1, 1) * X + bottoms["y"]
    np.testing.assert_allclose(net.forward()["top"], wanted, rtol=1e-5, atol=1e-6)
    dy = RANDOM.normal(size=X.shape).astype(np.float32)
    diffs = diffs_of(net, top=dy)
    np.testing.assert_allclose(diffs["scale"].reshape(2, 6), (dy * X).sum((2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(diffs["x"], dy * bottoms["scale"].reshape(2, 6, 1, 1), rtol=1e-5)
    np.testing.assert_array_equal(diffs["y"], dy)


def test_axpy_refuses_a_scale_of_other_channels():
    with pytest.raises(NetError, match="'scale' has the shape 2×5, but must have 2×6"):
        top_of("Axpy", {"scale": np.ones((2, 5)), "x": X, "y": X})


# Interp --------------------------------------------------------------------------------------------------------------


def bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corners on corners, place by place, as caffe_cpu_interp2."""
    y = np.empty((*x.shape[:2], *size))
    steps = [(n - 1) / (m - 1) if m > 1 else 0 for n, m in zip(x.shape[2:], size, strict=True)]
    for h in range(size[0]):
        for w in range(size[1]):
            top, left = int(h * steps[0] + 1e-9), int(w * steps[1] + 1e-9)
            down, across = h * steps[0] - top, w * steps[1] - left
            bottom, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
            upper = (1 - across) * x[:, :, top, left] + across * x[:, :, top, right]
            lower = (1 - across) * x[:, :, bottom, left] + across * x[:, :, bottom, right]
            y[:, :, h, w] = (1 - down) * upper + down * lower
    return y


@pytest.mark.parametrize(
    "text, size",
    [
        ("height: 11 width: 4", (11, 4)),
        ("height: 1 width: 9", (1, 9)),
        ("zoom_factor: 3", (13, 19)),
        ("shrink_factor: 2", (3, 4)),
        ("shrink_factor: 2 zoom_factor: 2", (5, 7)),
        ("height: 5 width: 7", (5, 7)),
    ],
)
def test_interp_keeps_the_corners_where_they_are(text, size):
    net = net_over("Interp", {"x": X}, f"interp_param {{ {text} }}")
    np.testing.assert_allclose(net.forward()["top"], bilinear(X, size), rtol=1e-4, atol=1e-5)
    more = np.concatenate([X, -X])
    np.testing.assert_allclose(exported_tops(net, {"x": more})["top"], bilinear(more, size), rtol=1e-4, atol=1e-5)
    assert_transposed(net, "x")


def test_interp_crops_first_where_pads_are_negative():
    net = net_over("Interp", {"x": X}, "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }")
    np.testing.assert_allclose(net.forward()["top"], bilinear(X[:, :, 1:-2, 1:-2], (3, 7)), rtol=1e-4, atol=1e-5)
    assert_transposed(net, "x")


@pytest.mark.parametrize("text", ["", "height: 3", "height: 3 width: 3 zoom_factor: 2", "zoom_factor: 0", "pad_beg: 1"])
def test_interp_refuses_what_does_not_say_a_size(text):
    with pytest.raises(NetError, match="give height and width|must be 1 or more|must be 0 or less"):
        top_of("Interp", {"x": X}, f"interp_param {{ {text} }}")
