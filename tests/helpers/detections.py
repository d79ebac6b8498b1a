"""What a DetectionOutput reads: drawn codes, scores and prior boxes."""

from __future__ import annotations

import numpy as np

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def priors_of(count: int, random: np.random.Generator) -> np.ndarray:
    low = random.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(0.1, 0.4, (count, 2))], axis=1)
    return np.stack([boxes.reshape(-1), np.tile(VARIANCES, count)])[None].astype(np.float32)


def bottoms_of(images: int, count: int, classes: int, shared: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = np.exp(random.normal(size=(images, count, classes)) * 2)
    return {
        "code": random.normal(size=(images, count * 4 * (1 if shared else classes))).astype(np.float32),
        "scores": (scores / scores.sum(-1, keepdims=True)).reshape(images, -1).astype(np.float32),
        "priors": priors_of(count, random),
    }


def parameters(classes: int, nms: str = "", rest: str = "") -> str:
    return f"detection_output_param {{ num_classes: {classes} nms_param {{ {nms} }} {rest} }}"
