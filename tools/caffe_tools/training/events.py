"""What happens in a training run, as ``Training.run`` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Output:
    """One output blob of a net: its values (in a test their means over the batches) and its loss_weight."""

    name: str
    values: np.ndarray
    loss_weight: float


@dataclass(frozen=True)
class Iteration:
    """One iteration. ``iteration`` counts from 0, ``loss`` is that before the update, ``smoothed_loss`` the mean of the
    last ``average_loss`` losses. ``rate`` is the learning rate; None in the forward pass after the last iteration,
    which only shows the loss. ``outputs`` are given where ``display`` asks for them."""

    iteration: int
    loss: float
    smoothed_loss: float
    rate: float | None
    outputs: list[Output] | None


@dataclass(frozen=True)
class Evaluation:
    """One pass of a test net: the means of its outputs, and with ``test_compute_loss`` of its loss."""

    iteration: int
    net: int
    outputs: list[Output]
    loss: float | None


@dataclass(frozen=True)
class Snapshotted:
    """A snapshot was written; ``path`` is its .solverstate."""

    iteration: int
    path: Path


Event = Iteration | Evaluation | Snapshotted
