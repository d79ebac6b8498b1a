"""Normalize beside the golden cases: Caffe's backward in its own words, shapes, symbolic dims."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import diffs_of, exported_tops, net_over, top_of

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
SCALE = np.array([0.5, 2, -3], np.float32)


def net_with(across: bool, shared: bool, x: np.ndarray = X):
    text = f"norm_param {{ across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} }}"
    net = net_over("Normalize", {"x": x}, text)
    net.params["layer"][0].data[...] = 2 if shared else SCALE
    return net


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_vectors_get_length_1_times_the_scale(across, shared):
    net = net_with(across, shared)
    scale = np.float32(2) if shared else SCALE[:, None, None]
    norm = np.sqrt(np.square(X, dtype=np.float64).sum((1, 2, 3) if across else 1, keepdims=True))
    np.testing.assert_allclose(net.forward()["top"], X / norm * scale, rtol=1e-5)


def test_the_diff_of_unequal_scales_is_scaled_after_the_projection_as_in_caffe_ssd():
    """dx = scale · (dy − x (x·dy) / |x|²) / |x|, where the derivative has scale · dy in the place of dy."""
    net, dy = net_with(False, False), np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    dx = diffs_of(net, top=dy)["x"]
    square = np.square(X, dtype=np.float64).sum(1, keepdims=True)
    along = (X * dy).sum(1, keepdims=True, dtype=np.float64)
    wanted = (dy - X * along / square) / np.sqrt(square) * SCALE[:, None, None]
    np.testing.assert_allclose(dx, wanted, rtol=1e-4, atol=1e-5)


def test_the_scale_of_each_channel_gets_the_sum_of_its_unit_vectors_times_dy():
    net, dy = net_with(False, False), np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    diffs_of(net, top=dy)
    unit = X / np.sqrt(np.square(X, dtype=np.float64).sum(1, keepdims=True))
    np.testing.assert_allclose(net.params["layer"][0].diff, (unit * dy).sum((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_vector_of_zeros_stays_one():
    assert not net_with(False, True, np.zeros((1, 3, 2, 2))).forward()["top"].any()


def test_two_axes_are_enough():
    assert top_of("Normalize", {"x": X[:, :, 0, 0]}).shape == (2, 3)


def test_the_first_scale_is_1():
    assert net_over("Normalize", {"x": X}).params["layer"][0].data == 1


def test_the_batch_may_be_symbolic():
    more = np.concatenate([X, 2 * X, X])
    net = net_with(True, False)
    np.testing.assert_allclose(
        exported_tops(net, {"x": more})["top"], net_with(True, False, more).forward()["top"], rtol=1e-6
    )


def test_a_vector_alone_is_refused():
    with pytest.raises(NetError, match="2 to 4 axes"):
        top_of("Normalize", {"x": np.ones(3)})
