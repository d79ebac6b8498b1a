"""SmoothL1Loss with weights and sigma, which the golden cases of Caffe-SSD lack."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import net_over

SHAPE = (3, 4, 2, 2)


def bottoms_of(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    names = ("x", "target", "inside", "outside")[:number]
    return {name: random.normal(size=SHAPE).astype(np.float32) for name in names}


def loss_and_slope(bottoms: dict[str, np.ndarray], sigma: float) -> tuple[float, np.ndarray]:
    """The loss and its diff by x as py-faster-rcnn computes them, element by element in float64."""
    b = {name: value.astype(np.float64) for name, value in bottoms.items()}
    d = b.get("inside", 1) * (b["x"] - b["target"])
    small = np.abs(d) < 1 / sigma**2
    losses = np.where(small, 0.5 * sigma**2 * d**2, np.abs(d) - 0.5 / sigma**2)
    slope = np.where(small, sigma**2 * d, np.sign(d))
    if "outside" in b:
        losses, slope = losses * b["outside"], slope * b["inside"] * b["outside"]
    return losses.sum() / SHAPE[0], slope / SHAPE[0]


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("sigma", [1.0, 3.0, 0.5])
def test_loss_and_diffs_are_those_of_the_definition(number, sigma):
    bottoms = bottoms_of(number)
    net = net_over("SmoothL1Loss", bottoms, f"smooth_l1_loss_param {{ sigma: {sigma} }} loss_weight: 0.5")
    net.forward()
    diffs = net.backward()
    loss, slope = loss_and_slope(bottoms, sigma)
    np.testing.assert_allclose(net.blobs["top"].data, loss, rtol=1e-6)
    np.testing.assert_allclose(diffs["x"], 0.5 * slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(diffs["target"], -0.5 * slope, rtol=1e-5, atol=1e-7)
    assert not any(diffs[name].any() for name in bottoms if name in ("inside", "outside"))


def test_the_target_may_spell_its_last_axes_of_1():
    bottoms = {"x": np.ones((2, 3), np.float32), "target": np.zeros((2, 3, 1, 1), np.float32)}
    net = net_over("SmoothL1Loss", bottoms)
    net.forward()
    assert net.blobs["top"].data == 1.5
    assert net.backward()["target"].shape == (2, 3, 1, 1)


def test_another_shape_is_refused():
    with pytest.raises(NetError, match="'target' has the shape 3×4, but must have 2×3: all its bottoms have one shape"):
        net_over("SmoothL1Loss", {"x": np.ones((2, 3)), "target": np.ones((3, 4))})


def test_sigma_must_be_positive():
    with pytest.raises(NetError, match="sigma must be positive"):
        net_over("SmoothL1Loss", bottoms_of(2), "smooth_l1_loss_param { sigma: 0 }")
