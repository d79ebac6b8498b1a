"""What each of Caffe's solvers subtracts from a learnable blob, from its gradient and what the solver remembers.

In the formulas w is the blob, g its gradient (clipped, normalized and regularized by ``update.py``), r the rate of the
blob (learning rate · lr_mult), m momentum, δ delta, t the number of this update from 1. All arithmetic is float32,
element by element, in Caffe's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from caffe_tools.training.solver_spec import SolverSpec

Rule = Callable[[SolverSpec, np.ndarray, np.float32, Sequence[np.ndarray], int], np.ndarray]
"""``rule(solver, g, r, history, t)`` returns the update, of g's shape, and changes the arrays of ``history``."""


def sgd(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h ← m·h + r·g; the update is h. Source: src/caffe/solvers/sgd_solver.cpp."""
    (h,) = history
    h *= np.float32(solver.momentum)
    h += r * g
    return h


def nesterov(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h′ = m·h + r·g; the update is (1 + m)·h′ − m·h, then h ← h′. Source: src/caffe/solvers/nesterov_solver.cpp."""
    (h,) = history
    m = np.float32(solver.momentum)
    stepped_back = m * h
    h *= m
    h += r * g
    return (np.float32(1) + m) * h - stepped_back


def adagrad(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h ← h + g²; the update is r·g / (√h + δ). Source: src/caffe/solvers/adagrad_solver.cpp."""
    (h,) = history
    h += g * g
    return r * (g / (np.sqrt(h) + np.float32(solver.delta)))


def rmsprop(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h ← d·h + (1 − d)·g² with d = rms_decay; the update is r·g / (√h + δ).

    Source: src/caffe/solvers/rmsprop_solver.cpp.
    """
    (h,) = history
    d = np.float32(solver.rms_decay)
    h *= d
    h += (np.float32(1) - d) * (g * g)
    return r * (g / (np.sqrt(h) + np.float32(solver.delta)))


def adadelta(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h ← m·h + (1 − m)·g²; v = g·√((u + δ) / (h + δ)); u ← m·u + (1 − m)·v²; the update is r·v.

    The momentum is Zeiler's decay ρ (ADADELTA: An Adaptive Learning Rate Method, 2012, Algorithm 1).
    Source: src/caffe/solvers/adadelta_solver.cpp.
    """
    h, u = history
    m, delta = np.float32(solver.momentum), np.float32(solver.delta)
    rest = np.float32(1) - m
    h *= m
    h += rest * (g * g)
    v = g * np.sqrt((u + delta) / (h + delta))
    u *= m
    u += rest * (v * v)
    return r * v


def adam(solver: SolverSpec, g: np.ndarray, r: np.float32, history: Sequence[np.ndarray], t: int) -> np.ndarray:
    """h ← β₁·h + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; the update is r · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · h / (√v + δ).

    β₁ is momentum, β₂ momentum2. It is the paper's second form, in which δ stands for its ε̂ (Kingma and Ba, Adam,
    2015, end of section 2). Source: src/caffe/solvers/adam_solver.cpp.
    """
    h, v = history
    b1, b2, one = np.float32(solver.momentum), np.float32(solver.momentum2), np.float32(1)
    h *= b1
    h += (one - b1) * g
    v *= b2
    v += (one - b2) * (g * g)
    correction = np.float32(np.sqrt(1 - np.float64(b2) ** t) / (1 - np.float64(b1) ** t))
    return (r * correction) * (h / (np.sqrt(v) + np.float32(solver.delta)))


class SolverType(NamedTuple):
    """A rule, how many arrays it remembers for each blob, and what it asks of the solver's fields."""

    rule: Rule
    memory: int
    must_be_0: Sequence[str] = ()
    must_be_below_1: Sequence[str] = ()


SOLVERS = {
    "SGD": SolverType(sgd, 1),
    "Nesterov": SolverType(nesterov, 1),
    "AdaGrad": SolverType(adagrad, 1, must_be_0=["momentum"]),
    "RMSProp": SolverType(rmsprop, 1, must_be_0=["momentum"], must_be_below_1=["rms_decay"]),
    "AdaDelta": SolverType(adadelta, 2),
    "Adam": SolverType(adam, 2, must_be_below_1=["momentum", "momentum2"]),
}


def check_type(solver: SolverSpec) -> None:
    """Raise SolverError where the solver's type is unknown or a field has a value that its rule cannot take."""
    name = solver.type
    if name not in SOLVERS:
        raise solver.error("type", f"unknown solver type {name!r}: there are {', '.join(SOLVERS)}")
    for field in SOLVERS[name].must_be_0:
        value = getattr(solver, field)
        if value:
            raise solver.error(field, f"{name} has no {field}, but {field} is {value:g}: take it out")
    for field in SOLVERS[name].must_be_below_1:
        value = getattr(solver, field)
        if not 0 <= value < 1:
            raise solver.error(field, f"{field} is {value:g}: {name} needs 0 or more, below 1")
