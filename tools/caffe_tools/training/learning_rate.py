"""The learning rate of an iteration, by Caffe's policies.

base is base_lr, i the iteration (from 0). Powers are taken in double precision, of single-precision numbers.
Source: Caffe src/caffe/solvers/sgd_solver.cpp (``GetLearningRate``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from caffe_tools.training.solver_spec import SolverSpec


def fixed(solver: SolverSpec, iteration: int, step: int) -> float:
    """base"""
    return solver.base_lr


def step(solver: SolverSpec, iteration: int, step: int) -> float:
    """base · gamma^⌊i / stepsize⌋"""
    return solver.base_lr * np.float64(solver.gamma) ** step


def exponential(solver: SolverSpec, iteration: int, step: int) -> float:
    """base · gamma^i"""
    return solver.base_lr * np.float64(solver.gamma) ** iteration


def inverse(solver: SolverSpec, iteration: int, step: int) -> float:
    """base · (1 + gamma · i)^−power"""
    decay = np.float32(1) + np.float32(solver.gamma) * np.float32(iteration)
    return solver.base_lr * np.float64(decay) ** -solver.power


def multistep(solver: SolverSpec, iteration: int, step: int) -> float:
    """base · gamma^(the number of stepvalues that have been reached)"""
    return solver.base_lr * np.float64(solver.gamma) ** step


def polynomial(solver: SolverSpec, iteration: int, step: int) -> float:
    """base · (1 − i / max_iter)^power; beyond max_iter 0, where Caffe's rate would be no number or grow again"""
    left = np.float32(1) - np.float32(iteration) / np.float32(solver.max_iter)
    return solver.base_lr * max(np.float64(left), 0.0) ** solver.power


def sigmoid(solver: SolverSpec, iteration: int, step: int) -> float:
    """base / (1 + e^(−gamma · (i − stepsize)))"""
    return solver.base_lr / (1 + np.exp(np.float64(-solver.gamma * (iteration - solver.stepsize))))


POLICIES: dict[str, tuple[Callable[[SolverSpec, int, int], float], dict[str, int]]] = {
    "fixed": (fixed, {}),
    "step": (step, {"gamma": 0, "stepsize": 1}),
    "exp": (exponential, {"gamma": 0}),
    "inv": (inverse, {"gamma": 0}),
    "multistep": (multistep, {"gamma": 0}),
    "poly": (polynomial, {"max_iter": 1}),
    "sigmoid": (sigmoid, {"gamma": 0, "stepsize": 1}),
}
"""lr_policy → its formula, and the least values of the fields that it needs."""


def check_policy(solver: SolverSpec) -> None:
    """Raise SolverError where the solver's policy is unknown or the solver lacks what the policy needs."""
    name = solver.lr_policy
    if name not in POLICIES:
        found = f"unknown lr_policy {name!r}" if name else "it has no lr_policy"
        raise solver.error("lr_policy", f"{found}: there are {', '.join(POLICIES)}")
    _, needs = POLICIES[name]
    for field, least in needs.items():
        value = getattr(solver, field)
        if value < least:
            raise solver.error(field, f"{field} is {value:g}: lr_policy {name!r} needs a {field} of {least} or more")


def learning_rate(solver: SolverSpec, iteration: int, step: int) -> np.float32:
    """The rate of ``iteration``; ``step`` is what ``next_step`` gave for it."""
    rate, _ = POLICIES[solver.lr_policy]
    with np.errstate(over="ignore"):  # a rate beyond float32 is inf, as in Caffe
        return np.float32(rate(solver, iteration, step))


def next_step(solver: SolverSpec, iteration: int, step: int) -> int:
    """The current_step of ``iteration``, from that of the iteration before: how often the rate has been lowered.

    With ``multistep`` it grows by one an iteration at most, as in Caffe.
    """
    if solver.lr_policy == "step":
        return iteration // solver.stepsize
    if solver.lr_policy == "multistep" and step < len(solver.stepvalue) and iteration >= solver.stepvalue[step]:
        return step + 1
    return step
