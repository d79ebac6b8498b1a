"""The policies of the learning rate, against their formulas in Caffe's documentation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe_tools.training.learning_rate import learning_rate, next_step
from solver_nets import solver_of


def rates(text, count=12):
    solver, step, found = solver_of(text), 0, []
    for iteration in range(count):
        step = next_step(solver, iteration, step)
        found.append(learning_rate(solver, iteration, step))
    assert all(isinstance(rate, np.float32) for rate in found)
    return found


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ('lr_policy: "fixed" base_lr: 0.3', lambda i: 0.3),
        ('lr_policy: "step" base_lr: 0.3 gamma: 0.5 stepsize: 4', lambda i: 0.3 * 0.5 ** (i // 4)),
        ('lr_policy: "exp" base_lr: 0.3 gamma: 0.9', lambda i: 0.3 * 0.9**i),
        ('lr_policy: "inv" base_lr: 0.3 gamma: 0.1 power: 0.75', lambda i: 0.3 * (1 + 0.1 * i) ** -0.75),
        (
            'lr_policy: "multistep" base_lr: 0.3 gamma: 0.5 stepvalue: 3 stepvalue: 4 stepvalue: 9',
            lambda i: 0.3 * 0.5 ** sum(i >= value for value in (3, 4, 9)),
        ),
        ('lr_policy: "poly" base_lr: 0.3 power: 2 max_iter: 11', lambda i: 0.3 * (1 - i / 11) ** 2),
        ('lr_policy: "sigmoid" base_lr: 0.3 gamma: 0.5 stepsize: 5', lambda i: 0.3 / (1 + math.exp(-0.5 * (i - 5)))),
    ],
)
def test_a_policy_gives_the_rate_of_its_formula(text, formula):
    np.testing.assert_allclose(rates(text), [formula(i) for i in range(12)], rtol=1e-6)


def test_multistep_lowers_the_rate_once_an_iteration_at_most():
    found = rates('lr_policy: "multistep" base_lr: 1 gamma: 0.5 stepvalue: 0 stepvalue: 0 stepvalue: 0', 5)
    assert found == [0.5, 0.25, 0.125, 0.125, 0.125]


def test_a_resumed_multistep_goes_on_from_its_step():
    solver = solver_of('lr_policy: "multistep" base_lr: 1 gamma: 0.5 stepvalue: 2 stepvalue: 9')
    assert next_step(solver, 7, 1) == 1 and next_step(solver, 9, 1) == 2


def test_poly_is_zero_from_max_iter_on():
    assert rates('lr_policy: "poly" base_lr: 1 power: 0.5 max_iter: 3', 6)[3:] == [0, 0, 0]


def test_a_rate_beyond_float32_is_infinite():
    assert rates('lr_policy: "exp" base_lr: 1 gamma: 1e30', 40)[-1] == np.inf


def test_the_rates_of_real_caffes_run_are_met(shared):
    with np.load(shared / "golden" / "net_lenet_sgd.npz") as stored:
        expected = stored["lr"]
    found = rates('lr_policy: "inv" base_lr: 0.05 gamma: 0.1 power: 0.75', len(expected))
    np.testing.assert_allclose(found, expected, rtol=2e-7)
