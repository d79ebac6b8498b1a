"""Interp, place by place."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import assert_transposed, exported_tops, net_over, top_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, 5, 7)).astype(np.float32)


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
