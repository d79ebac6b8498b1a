"""Each solver against its paper, written down once more in float64 and in another form than Caffe's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.training.update_rules import SOLVERS
from solver_nets import solver_of

SIZE = 6
DECAYS = st.integers(0, 63).map(lambda number: number / 64)
"""Below 1, and the same number in single precision."""
RUNS = st.tuples(st.integers(0, 2**31), st.integers(1, 15))


def drawn(run):
    """Gradients, the rates of the updates, and where the blob starts."""
    seed, count = run
    random = np.random.default_rng(seed)
    scales = 10.0 ** random.integers(-3, 3, size=(1, SIZE))
    gradients = (scales * random.normal(size=(count, SIZE))).astype(np.float32)
    return gradients, random.uniform(0.01, 1, count).astype(np.float32), random.normal(size=SIZE).astype(np.float32)


def path_of(text, run):
    """The blob after each update by a solver."""
    solver = solver_of(text)
    rule, memory, *_ = SOLVERS[solver.type]
    gradients, rates, blob = drawn(run)
    history = [np.zeros(SIZE, np.float32) for _ in range(memory)]
    path = []
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        blob = blob - rule(solver, gradient.copy(), rate, history, number)
        assert blob.dtype == np.float32 and all(array.dtype == np.float32 for array in history)
        path.append(blob)
    return np.array(path)


def expected(steps, run):
    """The path of a blob that makes these steps downward."""
    return drawn(run)[2].astype(np.float64) - np.cumsum(steps, axis=0)


def assert_same_path(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


def float32(value):
    return float(np.float32(value))


@settings(max_examples=30)
@given(RUNS, DECAYS)
def test_sgd_steps_by_all_gradients_so_far_each_fading_with_the_momentum(run, momentum):
    gradients, rates, _ = (array.astype(np.float64) for array in drawn(run))
    steps = [sum(momentum ** (t - k) * rates[k] * gradients[k] for k in range(t + 1)) for t in range(len(gradients))]
    assert_same_path(path_of(f'type: "SGD" momentum: {momentum!r}', run), expected(steps, run))


@settings(max_examples=30)
@given(RUNS, DECAYS)
def test_nesterov_is_where_sutskevers_method_looks_ahead(run, momentum):
    """Sutskever et al., 2013: v ← μv − ε∇f(θ + μv), θ ← θ + v. Caffe's blob is θ + μv, where gradients are taken."""
    gradients, rates, theta = (array.astype(np.float64) for array in drawn(run))
    velocity, path = np.zeros(SIZE), []
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity - rate * gradient
        theta = theta + velocity
        path.append(theta + momentum * velocity)
    assert_same_path(path_of(f'type: "Nesterov" momentum: {momentum!r}', run), np.array(path))


@settings(max_examples=30)
@given(RUNS, st.sampled_from([1e-8, 1e-3, 0.5]))
def test_adagrad_divides_by_the_root_of_the_sum_of_all_squares(run, delta):
    """Duchi et al., 2011."""
    gradients, rates, _ = (array.astype(np.float64) for array in drawn(run))
    roots = np.sqrt(np.cumsum(gradients**2, axis=0))
    steps = rates[:, None] * gradients / (roots + float32(delta))
    assert_same_path(path_of(f'type: "AdaGrad" delta: {delta}', run), expected(steps, run))


@settings(max_examples=30)
@given(RUNS, DECAYS, st.sampled_from([1e-8, 1e-3, 0.5]))
def test_rmsprop_divides_by_the_root_of_a_fading_mean_of_squares(run, decay, delta):
    """Tieleman and Hinton, Lecture 6.5, 2012."""
    gradients, rates, _ = (array.astype(np.float64) for array in drawn(run))
    means = [
        (1 - decay) * sum(decay ** (t - k) * gradients[k] ** 2 for k in range(t + 1)) for t in range(len(gradients))
    ]
    steps = rates[:, None] * gradients / (np.sqrt(means) + float32(delta))
    assert_same_path(path_of(f'type: "RMSProp" rms_decay: {decay!r} delta: {delta}', run), expected(steps, run))


@settings(max_examples=30)
@given(RUNS, DECAYS, st.sampled_from([1e-6, 1e-3, 0.5]))
def test_adadelta_steps_by_the_ratio_of_the_roots_of_both_means(run, rho, epsilon):
    """Zeiler, 2012, algorithm 1: Δx = −RMS[Δx] / RMS[g] · g; Caffe multiplies what it subtracts by the rate."""
    gradients, rates, _ = (array.astype(np.float64) for array in drawn(run))
    epsilon64 = float32(epsilon)
    mean_g, mean_x, steps = np.zeros(SIZE), np.zeros(SIZE), []
    for gradient in gradients:
        mean_g = rho * mean_g + (1 - rho) * gradient**2
        change = -np.sqrt(mean_x + epsilon64) / np.sqrt(mean_g + epsilon64) * gradient
        mean_x = rho * mean_x + (1 - rho) * change**2
        steps.append(-change)
    steps = rates[:, None] * np.array(steps)
    assert_same_path(path_of(f'type: "AdaDelta" momentum: {rho!r} delta: {epsilon}', run), expected(steps, run))


@settings(max_examples=30)
@given(RUNS, DECAYS, st.sampled_from([0.0, 0.9, 0.999]), st.sampled_from([1e-8, 1e-3, 0.5]))
def test_adam_steps_by_the_bias_corrected_moments(run, beta1, beta2, delta):
    """Kingma and Ba, 2015, algorithm 1, with its ε = delta / √(1 − β₂ᵗ) at time t."""
    gradients, rates, _ = (array.astype(np.float64) for array in drawn(run))
    b2, steps = float32(beta2), []
    for t in range(1, len(gradients) + 1):
        fading = np.arange(t - 1, -1, -1)[:, None]
        first = (1 - beta1) * np.sum(beta1**fading * gradients[:t], axis=0) / (1 - beta1**t)
        second = (1 - b2) * np.sum(b2**fading * gradients[:t] ** 2, axis=0) / (1 - b2**t)
        steps.append(rates[t - 1] * first / (np.sqrt(second) + float32(delta) / np.sqrt(1 - b2**t)))
    text = f'type: "Adam" momentum: {beta1!r} momentum2: {beta2} delta: {delta}'
    assert_same_path(path_of(text, run), expected(steps, run))


@pytest.mark.parametrize("type_", SOLVERS)
def test_an_update_may_not_write_into_the_gradient_before_it_is_used(type_):
    solver = solver_of(f'type: "{type_}"')
    rule, memory, *_ = SOLVERS[type_]
    gradient = np.arange(1, 5, dtype=np.float32)
    rule(solver, gradient, np.float32(0.5), [np.zeros(4, np.float32) for _ in range(memory)], 1)
    assert gradient.tolist() == [1, 2, 3, 4]
