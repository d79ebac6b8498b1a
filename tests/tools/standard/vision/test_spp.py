"""SPP: each grid of windows against plain loops, and the pyramids that do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import net_over
from open_dims import tops_with_open_dims


def spp_net(x, height, pool):
    return net_over("SPP", {"x": x}, f"spp_param {{ pyramid_height: {height} pool: {pool} }}")


def fits(size, bins):
    length = -(-size // bins)
    return (length * bins - size + 1) // 2 < length


def grid(x, bins, pool):
    """bins × bins windows, those of MAX cut at the edges, those of AVE padded with zeros."""
    begins, lengths = [], []
    for size in x.shape[2:]:
        length = -(-size // bins)
        lengths.append(length)
        begins.append([i * length - (length * bins - size + 1) // 2 for i in range(bins)])
    result = np.zeros((*x.shape[:2], bins, bins))
    for i, top in enumerate(begins[0]):
        for j, left in enumerate(begins[1]):
            window = x[:, :, max(top, 0) : top + lengths[0], max(left, 0) : left + lengths[1]]
            result[:, :, i, j] = window.max((2, 3)) if pool == "MAX" else window.sum((2, 3)) / np.prod(lengths)
    return result


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    height=st.integers(2, 3),
    pool=st.sampled_from(["MAX", "AVE"]),
)
def test_the_pyramid_is_its_grids_side_by_side(size, height, pool):
    x = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    grids = [2**level for level in range(height)]
    if not all(fits(s, bins) for s in size for bins in grids):
        with pytest.raises(NetError, match="too few for . windows: give a smaller pyramid_height"):
            spp_net(x, height, pool)
        return
    wanted = np.concatenate([grid(x, bins, pool).reshape(2, -1) for bins in grids], axis=1)
    np.testing.assert_allclose(spp_net(x, height, pool).forward()["top"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_a_single_grid_keeps_four_axes_and_takes_images_of_any_size(pool):
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
    net = spp_net(x, 1, pool)
    np.testing.assert_allclose(net.forward()["top"], grid(x, 1, pool), rtol=1e-5)
    (found,) = tops_with_open_dims(net, {"x": ("n", 3, "h", "w")}, {"x": x})
    assert found.shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("shape", "height", "pool", "message"),
    [
        ((1, 2, 4), 1, "MAX", "has the shape 1×2×4: it takes 4 axes"),
        ((1, 2, 4, 4), 0, "MAX", "pyramid_height is missing or 0"),
        ((1, 2, 4, 4), 1, "STOCHASTIC", "pool STOCHASTIC is not covered"),
    ],
)
def test_what_caffe_could_not_pool_is_refused(shape, height, pool, message):
    with pytest.raises(NetError, match=message):
        spp_net(np.zeros(shape), height, pool)
