"""Upsample and Unpooling, with the places of a Pooling and without."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from nets import inputs, layer, net_of
from one_layer import assert_transposed, diffs_of, exported_tops, net_over, top_of
from tables import rows

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 3, 2, 3)).astype(np.float32)


def places(size: tuple[int, int], x: np.ndarray = X) -> np.ndarray:
    """A place of its own in the larger image for each element."""
    flat = [RANDOM.permutation(size[0] * size[1])[: x.shape[2] * x.shape[3]] for _ in range(x.shape[0] * x.shape[1])]
    return np.reshape(flat, x.shape).astype(np.float32)


def placed(x: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    y = np.zeros((*x.shape[:2], size[0] * size[1]), np.float32)
    for n, c, h, w in np.ndindex(x.shape):
        y[n, c, int(mask[n, c, h, w])] = x[n, c, h, w]
    return y.reshape(*x.shape[:2], *size)


@pytest.mark.parametrize(
    "type_, text, size",
    [
        ("Upsample", "", (4, 6)),
        ("Upsample", "upsample_param { scale: 3 }", (6, 9)),
        ("Upsample", "upsample_param { scale_h: 2 scale_w: 3 }", (4, 9)),
        ("Upsample", "upsample_param { scale: 2 pad_out_h: true }", (3, 6)),
        ("Upsample", "upsample_param { upsample_h: 5 upsample_w: 8 }", (5, 8)),
        ("Unpooling", "unpooling_param { kernel_size: 2 stride: 2 }", (5, 7)),
        ("Unpooling", "unpooling_param { kernel_h: 4 kernel_w: 2 stride_h: 1 stride_w: 2 }", (5, 7)),
        ("Unpooling", "unpooling_param { kernel_size: 2 stride: 2 unpool_size: 8 }", (8, 8)),
    ],
)
def test_elements_go_to_the_places_that_the_mask_names(type_, text, size):
    bottoms = {"x": X, "mask": places(size)}
    net = net_over(type_, bottoms, text)
    np.testing.assert_array_equal(net.forward()["top"], placed(X, bottoms["mask"], size))
    more = {name: np.concatenate([value, value[::-1]]) for name, value in bottoms.items()}
    np.testing.assert_array_equal(exported_tops(net, more)["top"], placed(more["x"], more["mask"], size))
    assert_transposed(net, "x")


def test_an_upsample_undoes_the_pooling_whose_mask_it_has():
    net = net_of(
        inputs(x=(1, 2, 4, 6))
        + layer("pool", "Pooling", "x", "small mask", "pooling_param { kernel_size: 2 stride: 2 }")
        + layer("up", "Upsample", "small mask", "top", "upsample_param { scale: 2 }")
    )
    x = RANDOM.normal(size=(1, 2, 4, 6)).astype(np.float32)
    top = net.forward(x=x)["top"]
    largest = np.repeat(np.repeat(net.blobs["small"].data, 2, axis=2), 2, axis=3)
    np.testing.assert_array_equal(top, np.where(x == largest, x, 0))


def test_without_a_mask_upsample_repeats():
    net = net_over("Upsample", {"x": X}, "upsample_param { scale: 3 }")
    np.testing.assert_array_equal(net.forward()["top"], X.repeat(3, axis=2).repeat(3, axis=3))
    more = np.concatenate([X, -X])
    np.testing.assert_array_equal(exported_tops(net, {"x": more})["top"], more.repeat(3, axis=2).repeat(3, axis=3))
    assert_transposed(net, "x")


def test_without_a_mask_unpooling_puts_each_element_first_in_its_window():
    net = net_over("Unpooling", {"x": X}, "unpooling_param { kernel_size: 2 stride: 2 }")
    wanted = np.zeros((2, 3, 5, 7), np.float32)
    wanted[:, :, 0:4:2, 0:6:2] = X
    np.testing.assert_array_equal(net.forward()["top"], wanted)
    assert_transposed(net, "x")


@pytest.mark.parametrize("method, share", [("AVE", 1 / 9), ("TILE", 1.0)])
def test_ave_and_tile_spread_over_windows_that_add_up(method, share):
    net = net_over("Unpooling", {"x": X}, f"unpooling_param {{ unpool: {method} kernel_size: 3 stride: 2 }}")
    wanted = np.zeros((2, 3, 5, 7))
    for h, w in np.ndindex(X.shape[2:]):
        wanted[:, :, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3] += X[:, :, h, w, None, None] * share
    np.testing.assert_allclose(net.forward()["top"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["AVE", "TILE"])
def test_the_gradient_of_ave_and_of_tile_is_the_mean_over_the_window(method):
    net = net_over("Unpooling", {"x": X}, f"unpooling_param {{ unpool: {method} kernel_size: 3 stride: 2 }}")
    dy = RANDOM.normal(size=(2, 3, 5, 7)).astype(np.float32)
    means = [[dy[:, :, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3].mean((2, 3)) for w in range(3)] for h in range(2)]
    np.testing.assert_allclose(diffs_of(net, top=dy)["x"], np.transpose(means, (2, 3, 0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "type_, text, message",
    rows(
        """
        Upsample | | with one bottom, give its scale
        Upsample | upsample_param { scale: 2 pad_out_h: true } | and nothing else
        Unpooling | | kernel_size is missing
        Unpooling | unpooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 } | give kernel_size, or
        Unpooling | unpooling_param { kernel_size: 2 pad: 1 } | pads must be 0
        Unpooling | unpooling_param { unpool: AVE kernel_size: 3 stride: 2 unpool_size: 4 } | hold all of its
        """
    ),
)
def test_what_does_not_fit_is_said(type_, text, message):
    with pytest.raises(NetError, match=message):
        top_of(type_, {"x": X}, text)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(NetError, match="'mask' has the shape 2×3×2×2, but must have 2×3×2×3"):
        top_of("Upsample", {"x": X, "mask": np.zeros((2, 3, 2, 2))})
