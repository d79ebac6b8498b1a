"""The workloads of losses.py: their data, and the loss that they are for. numpy alone, as every peer reads this."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

Workload = namedtuple("Workload", "text function parameters layer make repeat")


def _w1(rng):
    return rng.standard_normal((100_000, 80), np.float32), (rng.random((100_000, 80)) < 0.01).astype(np.float32)


def _w2(rng):
    return rng.standard_normal((100_000, 80), np.float32), rng.random((100_000, 80), np.float32)


def _w3(rng):
    labels = rng.integers(0, 21, (8, 500, 500))
    labels[rng.random(labels.shape) < 0.05] = 255
    return rng.standard_normal((8, 21, 500, 500), np.float32), labels


def _w4(rng):
    return rng.standard_normal((4096, 1000), np.float32), (rng.random((4096, 1000)) < 0.003).astype(np.float32)


def _w5(rng):
    labels = np.where(rng.random(100_000) < 0.99, 0, rng.integers(1, 81, 100_000))
    return rng.standard_normal((100_000, 81), np.float32), labels


def _w6(rng):
    return rng.standard_normal((32, 10), np.float32), rng.integers(0, 10, 32)


WORKLOADS = {
    "W1": Workload(
        "sigmoid focal, 100 000 × 80, 1 % positive",
        "sigmoid_focal_loss",
        {"normalization": "BATCH_SIZE"},
        "SigmoidFocalLossLayer",
        _w1,
        1,
    ),
    "W2": Workload(
        "sigmoid CE, 100 000 × 80, dense targets",
        "sigmoid_cross_entropy_loss",
        {"normalization": "BATCH_SIZE"},
        "SigmoidCrossEntropyLossLayer",
        _w2,
        1,
    ),
    "W3": Workload(
        "softmax loss, 8×21×500×500, axis 1, 5 % ignored",
        "softmax_loss",
        {"ignore_label": 255},
        "SoftmaxLossLayer",
        _w3,
        1,
    ),
    "W4": Workload(
        "multi-label softmax, 4096 × 1000, ~3 positives",
        "softmax_loss",
        {"target": "multi_label"},
        "SoftmaxLossLayer",
        _w4,
        1,
    ),
    "W5": Workload(
        "softmax focal, 100 000 × 81, 99 % background", "softmax_focal_loss", {}, "SoftmaxFocalLossLayer", _w5, 1
    ),
    "W6": Workload("softmax loss, 32 × 10", "softmax_loss", {}, "SoftmaxLossLayer", _w6, 1000),
}


def arrays(name):
    """(scores, labels) of a workload, the same in every process."""
    return WORKLOADS[name].make(np.random.default_rng(0))
