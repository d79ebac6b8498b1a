"""Axpy: values and gradients against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import diffs_of, net_over, top_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, 5, 7)).astype(np.float32)


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
