"""PSROIPooling against R-FCN's algorithm, bin by bin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import diffs_of, exported_tops, net_over, top_of

GROUP, OUTPUTS, SCALE = 3, 2, np.float32(0.0625)
TEXT = f"psroi_pooling_param {{ spatial_scale: {SCALE} output_dim: {OUTPUTS} group_size: {GROUP} }}"


def drawn(seed: int, regions: int = 6) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    rois = np.c_[random.integers(0, 2, regions), random.uniform(-30, 170, (regions, 4))]
    rois[::2, 3:] = rois[::2, 1:3] + random.uniform(0, 90, (len(rois[::2]), 2))
    channels = OUTPUTS * GROUP**2
    return {"map": random.normal(3, 1, (2, channels, 8, 9)).astype(np.float32), "rois": rois.astype(np.float32)}


def c_round(value: np.float32) -> np.float32:
    return np.float32(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def bins(first: np.float32, last: np.float32, size: int) -> list[tuple[int, int]]:
    start, end = c_round(first) * SCALE, (c_round(last) + 1) * SCALE
    bin_size = max(end - start, np.float32(0.1)) / np.float32(GROUP)
    return [
        tuple(
            min(max(int(edge), 0), size)
            for edge in (np.floor(np.float32(i) * bin_size + start), np.ceil(np.float32(i + 1) * bin_size + start))
        )
        for i in range(GROUP)
    ]


def caffe(bottoms: dict[str, np.ndarray], dy: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    x = bottoms["map"].astype(np.float64)
    y, dx = np.zeros((len(bottoms["rois"]), OUTPUTS, GROUP, GROUP)), np.zeros_like(x)
    for n, (image, x1, y1, x2, y2) in enumerate(bottoms["rois"]):
        for i, (top, bottom) in enumerate(bins(y1, y2, x.shape[2])):
            for j, (left, right) in enumerate(bins(x1, x2, x.shape[3])):
                for d in range(OUTPUTS):
                    if bottom > top and right > left:
                        window = (int(image), (d * GROUP + i) * GROUP + j, slice(top, bottom), slice(left, right))
                        y[n, d, i, j] = x[window].mean()
                        if dy is not None:
                            dx[window] += dy[n, d, i, j] / x[window].size
    return y, dx


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_bin_is_the_mean_of_its_own_channel(seed):
    bottoms = drawn(seed)
    np.testing.assert_allclose(top_of("PSROIPooling", bottoms, TEXT), caffe(bottoms)[0], rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_spreads_evenly_over_each_bin(seed):
    bottoms, random = drawn(seed), np.random.default_rng(seed)
    dy = random.normal(size=(6, OUTPUTS, GROUP, GROUP)).astype(np.float32)
    diffs = diffs_of(net_over("PSROIPooling", bottoms, TEXT), top=dy)
    np.testing.assert_allclose(diffs["map"], caffe(bottoms, dy)[1], rtol=1e-5, atol=1e-6)
    assert not diffs["rois"].any()


def test_any_number_of_images_and_regions_goes_through_an_exported_model():
    net, more = net_over("PSROIPooling", drawn(0, regions=2), TEXT), drawn(1, regions=11)
    np.testing.assert_allclose(exported_tops(net, more)["top"], caffe(more)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "spatial_scale, output_dim and group_size must be given"),
        (TEXT.replace("output_dim: 2", "output_dim: 3"), "has 18 channels, but output_dim 3 · group_size² needs 27"),
    ],
)
def test_what_does_not_fit_is_said(text, message):
    with pytest.raises(NetError, match=message):
        top_of("PSROIPooling", drawn(0), text)
