"""Depthwise convolutions, window by window."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import assert_transposed, exported_tops, net_over

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, 5, 7)).astype(np.float32)


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
