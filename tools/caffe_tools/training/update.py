"""One update of a net's learnable blobs by their diffs.

Source: Caffe src/caffe/solvers/sgd_solver.cpp (``ApplyUpdate``, ``ClipGradients``, ``Normalize``, ``Regularize``),
src/caffe/net.cpp (``AppendParam``, ``Update``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caffe_tools.net.blob import Blob
from caffe_tools.net.keys import part_of
from caffe_tools.net.net import Net
from caffe_tools.training.learning_rate import check_policy, learning_rate, next_step
from caffe_tools.training.solver_spec import SolverSpec
from caffe_tools.training.update_rules import SOLVERS, check_type


@dataclass
class Learnable:
    """A learnable blob, listed under the first of the layers that share it, and what multiplies rate and decay."""

    name: str
    blob: Blob
    lr_mult: float = 1.0
    decay_mult: float = 1.0


def learnable_blobs(net: Net) -> list[Learnable]:
    """Caffe's ``learnable_params``: in the order of the layers, each shared blob once.

    Of the layers that share a blob, the first that says a multiplier gives it. BatchNorm's statistics are among them,
    with lr_mult 0: the forward pass sets them.
    """
    owners: dict[int, Learnable] = {}
    said: dict[str, set[str]] = {}
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            param = layer.spec.param(index)
            learnable = owners.setdefault(blob.memory, Learnable(part_of(layer.spec.name, index), blob))
            for multiplier in ("lr_mult", "decay_mult"):
                if multiplier in param.given and multiplier not in said.setdefault(learnable.name, set()):
                    setattr(learnable, multiplier, getattr(param, multiplier))
                    said[learnable.name].add(multiplier)
            if not layer.learns(index):
                learnable.lr_mult = 0.0
    return list(owners.values())


def check_update(solver: SolverSpec) -> None:
    """Raise SolverError where the solver's type or its learning rate's policy cannot work with its fields."""
    check_policy(solver)
    check_type(solver)


class Updater:
    """Applies a solver's updates to the learnable blobs of a net.

    iteration: how many updates have been made. step: Caffe's current_step, how often the policy has lowered the rate.
    history: what the solver remembers, as in Caffe: one array for each blob, and behind those, where the solver
    remembers two, the second one of each.
    """

    def __init__(self, solver: SolverSpec, net: Net) -> None:
        check_update(solver)
        self.solver = solver
        self.blobs = learnable_blobs(net)
        self._rule, count, *_ = SOLVERS[solver.type]
        self.history = [np.zeros(item.blob.shape, np.float32) for _ in range(count) for item in self.blobs]
        self.iteration = 0
        self.step = 0

    def apply(self) -> np.float32:
        """Update every blob by its diff, which becomes the update; the learning rate that was used."""
        solver = self.solver
        self.step = next_step(solver, self.iteration, self.step)
        rate = learning_rate(solver, self.iteration, self.step)
        with np.errstate(all="ignore"):  # a run that diverges shows it by its loss
            clip(self.blobs, solver.clip_gradients)
            for index, item in enumerate(self.blobs):
                gradient = item.blob.diff
                if solver.iter_size > 1:
                    gradient *= np.float32(1) / np.float32(solver.iter_size)
                regularize(item, solver)
                history = self.history[index :: len(self.blobs)]
                local_rate = rate * np.float32(item.lr_mult)
                gradient[...] = self._rule(solver, gradient, local_rate, history, self.iteration + 1)
                np.subtract(item.blob.data, gradient, out=item.blob.data)
        self.iteration += 1
        return rate


def clip(blobs: Sequence[Learnable], limit: float) -> None:
    """Scale all gradients so that their common L2 norm is ``limit`` at most; a negative limit is none.

    It is the norm before the division by iter_size.
    """
    if limit < 0:
        return
    squares = np.float32(0)
    for item in blobs:
        gradient = item.blob.diff.reshape(-1)
        squares += np.dot(gradient, gradient)
    norm = np.sqrt(squares)
    if norm > limit:
        for item in blobs:
            np.multiply(item.blob.diff, np.float32(limit) / norm, out=item.blob.diff)


def regularize(item: Learnable, solver: SolverSpec) -> None:
    """Add the gradient of the weight decay: d·w for L2, d·sign(w) for L1, with d = weight_decay · decay_mult."""
    decay = np.float32(solver.weight_decay) * np.float32(item.decay_mult)
    if decay:
        weights, gradient = item.blob.data, item.blob.diff
        gradient += decay * (weights if solver.regularization_type == "L2" else np.sign(weights))
