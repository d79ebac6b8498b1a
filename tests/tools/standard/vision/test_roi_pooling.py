"""ROIPooling against Fast R-CNN's algorithm, bin by bin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import diffs_of, exported_tops, net_over, top_of

SIZE = (3, 2)


def drawn(seed: int, regions: int = 6) -> dict[str, np.ndarray]:
    """Regions within the map, across its border, outside it and inside out; values with ties."""
    random = np.random.default_rng(seed)
    rois = np.c_[random.integers(0, 2, regions), random.uniform(-20, 140, (regions, 4))]
    rois[::2, 3:] = rois[::2, 1:3] + random.uniform(0, 60, (len(rois[::2]), 2))
    return {"map": random.integers(-3, 3, (2, 3, 8, 9)).astype(np.float32), "rois": rois.astype(np.float32)}


def parameters(scale: float) -> str:
    return f"roi_pooling_param {{ pooled_h: {SIZE[0]} pooled_w: {SIZE[1]} spatial_scale: {scale} }}"


def c_round(value: np.float32) -> int:
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def bins(first: int, last: int, count: int, size: int) -> list[tuple[int, int]]:
    bin_size = np.float32(max(last - first + 1, 1)) / np.float32(count)
    return [
        tuple(min(max(int(edge) + first, 0), size) for edge in (np.floor(i * bin_size), np.ceil((i + 1) * bin_size)))
        for i in range(count)
    ]


def caffe(bottoms: dict[str, np.ndarray], scale: float, dy: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The top, and the diff of the map."""
    x = bottoms["map"]
    y = np.zeros((len(bottoms["rois"]), x.shape[1], *SIZE), np.float32)
    dx = np.zeros_like(x)
    for n, (image, *corners) in enumerate(bottoms["rois"]):
        x1, y1, x2, y2 = (c_round(corner * np.float32(scale)) for corner in corners)
        for h, (top, bottom) in enumerate(bins(y1, y2, SIZE[0], x.shape[2])):
            for w, (left, right) in enumerate(bins(x1, x2, SIZE[1], x.shape[3])):
                if bottom <= top or right <= left:
                    continue
                for c in range(x.shape[1]):
                    window = x[int(image), c, top:bottom, left:right]
                    row, column = np.unravel_index(window.argmax(), window.shape)
                    y[n, c, h, w] = window[row, column]
                    if dy is not None:
                        dx[int(image), c, top + row, left + column] += dy[n, c, h, w]
    return y, dx


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0625, 0.125, 0.1]))
def test_each_bin_gives_its_greatest_value(seed, scale):
    bottoms = drawn(seed)
    np.testing.assert_array_equal(top_of("ROIPooling", bottoms, parameters(scale)), caffe(bottoms, scale)[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_goes_to_the_first_greatest_element_of_each_bin(seed):
    bottoms = drawn(seed)
    dy = np.random.default_rng(seed).normal(size=(6, 3, *SIZE)).astype(np.float32)
    diffs = diffs_of(net_over("ROIPooling", bottoms, parameters(0.0625)), top=dy)
    np.testing.assert_allclose(diffs["map"], caffe(bottoms, 0.0625, dy)[1], rtol=1e-5, atol=1e-6)
    assert not diffs["rois"].any()


def test_halves_round_away_from_zero():
    bottoms = {"map": np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6), "rois": np.array([[0, 2.5, 0.5, 3.4, 1.5]])}
    top = top_of("ROIPooling", bottoms, "roi_pooling_param { pooled_h: 1 pooled_w: 1 }")
    assert top.item() == 2 * 6 + 3


def test_regions_may_have_four_axes_and_be_any_number_in_an_exported_model():
    bottoms = drawn(1)
    net = net_over("ROIPooling", bottoms | {"rois": bottoms["rois"][:2].reshape(2, 5, 1, 1)}, parameters(0.0625))
    more = drawn(2, regions=9)
    found = exported_tops(net, more | {"rois": more["rois"].reshape(9, 5, 1, 1)})["top"]
    np.testing.assert_array_equal(found, caffe(more, 0.0625)[0])


@pytest.mark.parametrize(
    "bottoms, text, message",
    [
        (drawn(0), "", "pooled_h and pooled_w must be given"),
        (drawn(0) | {"rois": np.zeros((3, 4))}, parameters(1), "'rois' has the shape 3×4, but must be R×5"),
        (drawn(0) | {"map": np.zeros((3, 4))}, parameters(1), "'map' has the shape 3×4: it takes 4 axes"),
    ],
)
def test_what_does_not_fit_is_said(bottoms, text, message):
    with pytest.raises(NetError, match=message):
        top_of("ROIPooling", bottoms, text)
