"""Boxes and NMS as Caffe-SSD's and py-faster-rcnn's code writes them, one box at a time: what the layers must equal."""

from __future__ import annotations

import numpy as np


def overlap(a: np.ndarray, b: np.ndarray, plus: float = 0.0) -> np.float32:
    """Intersection over union in float32; a box that ends before it begins overlaps nothing. ``plus`` 1 counts pixels
    at both ends."""
    if (np.r_[a[2:] - a[:2], b[2:] - b[:2]] + plus < 0).any():
        return np.float32(0)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + np.float32(plus)
    if sides[0] <= 0 or sides[1] <= 0:
        return np.float32(0)
    common = sides[0] * sides[1]
    areas = [np.prod(box[2:] - box[:2] + np.float32(plus), dtype=np.float32) for box in (a, b)]
    return common / (areas[0] + areas[1] - common)


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    top_k: int = -1,
    least: float = -np.inf,
    eta: float = 1.0,
    plus: float = 0.0,
) -> list[int]:
    """The boxes kept, in falling order of score; of equal scores the first goes first."""
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > np.float32(least)]
    if top_k > -1:
        order = order[:top_k]
    kept: list[int] = []
    threshold, eta = np.float32(threshold), np.float32(eta)
    for candidate in order:
        if all(overlap(boxes[candidate], boxes[k], plus) <= threshold for k in kept):
            kept.append(candidate)
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return kept


def decode(code_type: str, code: np.ndarray, priors: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """One box after the other, in float32."""
    decoded = []
    for c, prior, variance in zip(code, priors, variances, strict=True):
        c, size = c * variance, np.tile(prior[2:] - prior[:2], 2)
        if code_type == "CORNER":
            decoded.append(prior + c)
        elif code_type == "CORNER_SIZE":
            decoded.append(prior + c * size)
        else:
            center = c[:2] * size[:2] + (prior[:2] + prior[2:]) / 2
            half = np.exp(c[2:]) * size[:2] / 2
            decoded.append(np.r_[center - half, center + half])
    return np.asarray(decoded, np.float32)
