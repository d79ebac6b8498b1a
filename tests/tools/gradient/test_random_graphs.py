"""The gradients of graphs drawn at random, against finite differences in float64 and against torch's autograd.

For every op that has a gradient rule there are graphs of 2 to 5 steps with it. A value may be used by several steps.
"""

import functools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from caffe_tools.gradient import RULES, gradients
from caffe_tools.graph.builder import Builder
from double_evaluator import evaluator
from graph_steps import SHAPES, STEPS

BEFORE = ["Add", "Mul", "PRelu", "Sigmoid", "Sin", "Sub", "Tanh"]
"""Steps that keep the shape."""
LARGEST = 200
"""How many elements a value may have, and how large they may be: differences of larger ones say little."""


class RandomGraph:
    """values[i] is a graph input where steps[i] is None, else what that step (its name, the places of what it takes)
    makes."""

    def __init__(self, draw, name):
        self.op = Builder(float_type=np.float64)
        self.values, self.steps = [], []
        self.add_input(draw(st.sampled_from([shape for shape in SHAPES if STEPS[name].fits(shape)]), "shape"))
        names = [draw(st.sampled_from(BEFORE), "step before")] if draw(st.booleans(), "has a step before") else []
        names.append(name)
        for step in names:
            self.add_step(draw, step)
        for _ in range(draw(st.integers(2 - len(names), 5 - len(names)), "steps after")):
            shape = self.op.shape(self.values[-1])
            self.add_step(draw, draw(st.sampled_from([name for name in STEPS if STEPS[name].fits(shape)]), "step"))

    def add_input(self, shape):
        self.values.append(self.op.input(f"x{len(self.values)}", shape))
        self.steps.append(None)

    def add_step(self, draw, name):
        places = [len(self.values) - 1]
        for shape in STEPS[name].more(self.op.shape(self.values[-1])):
            earlier = [place for place, value in enumerate(self.values) if self.op.shape(value) == shape]
            if earlier and draw(st.booleans(), "use an earlier value"):
                places.append(draw(st.sampled_from(earlier), "earlier value"))
            else:
                self.add_input(shape)
                places.append(len(self.values) - 1)
        value = STEPS[name].onnx(self.op, *(self.values[place] for place in places))
        assume(len(self.op.shape(value)) >= 2 and np.prod(self.op.shape(value)) <= LARGEST)
        self.values.append(value)
        self.steps.append((name, places))

    def inputs(self):
        return [value for value, step in zip(self.values, self.steps, strict=True) if step is None]

    def with_gradients(self):
        """A function of arrays by name that gives every value, then the gradient of Σ seed · y by each input."""
        y, inputs = self.values[-1], self.inputs()
        seed = self.op.input("seed", self.op.shape(y))
        diffs = gradients(self.op, {y: seed}, inputs)
        for number, value in enumerate([*self.values, *diffs]):
            self.op.output(value, f"output{number}")
        session = evaluator(ir.to_proto(ir.Model(self.op.graph, ir_version=10)))

        def run(feeds):
            found = session.run(None, feeds)
            return found[: len(self.values)], found[len(self.values) :]

        return run

    def in_torch(self, torch, feeds):
        """The last value and the gradient by each input."""
        inputs = [torch.tensor(feeds[value.name], requires_grad=True) for value in self.inputs()]
        fed, values = iter(inputs), []
        for step in self.steps:
            if step is None:
                values.append(next(fed))
            else:
                values.append(STEPS[step[0]].torch(torch, *(values[place] for place in step[1])))
        torch.sum(values[-1] * torch.tensor(feeds["seed"])).backward()
        return values[-1].detach().numpy(), [tensor.grad.numpy() for tensor in inputs]


def check_directions(run, feeds, gradients_, names, random):
    """The slope along random directions, by central differences: of all inputs at once."""
    step = 1e-6
    for _ in range(2):
        direction = {name: random.normal(size=feeds[name].shape) for name in names}
        sums, size = [], 0
        for sign in (1, -1):
            moved = {name: feeds[name] + sign * step * direction[name] for name in names}
            terms = run({**moved, "seed": feeds["seed"]})[0][-1] * feeds["seed"]
            sums.append(terms.sum())
            size = max(size, np.abs(terms).sum())
        parts = [np.sum(g * direction[name]) for name, g in zip(names, gradients_, strict=True)]
        numeric = (sums[0] - sums[1]) / (2 * step)
        rounding = size * np.finfo(float).eps / step
        assert sum(parts) == pytest.approx(numeric, rel=1e-6, abs=1e-6 * np.abs(parts).sum() + 10 * rounding)


def check_against_torch(graph, feeds, y, gradients_):
    torch = torch_or_none()
    if torch is None:
        return
    torch_y, torch_gradients = graph.in_torch(torch, feeds)
    np.testing.assert_allclose(y, torch_y, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients_, torch_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * max(1, np.abs(theirs).max()))


@functools.cache
def torch_or_none():
    try:
        import torch
    except ImportError:
        return None
    return torch


@pytest.mark.parametrize("name", STEPS)
@settings(
    max_examples=5,
    phases=[Phase.explicit, Phase.generate],  # five steps need no shrinking
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_the_gradient_agrees_with_finite_differences_and_torch(name, data, seed):
    graph, random = RandomGraph(data.draw, name), np.random.default_rng(seed)
    names = [value.name for value in graph.inputs()]
    feeds = {value.name: random.normal(size=graph.op.shape(value)) for value in graph.inputs()}
    feeds["seed"] = random.normal(size=graph.op.shape(graph.values[-1]))
    run = graph.with_gradients()
    values, found = run(feeds)
    assume(all(np.abs(value).max() <= LARGEST for value in values))
    check_directions(run, feeds, found, names, random)
    check_against_torch(graph, feeds, values[-1], found)


def test_every_rule_has_a_step():
    assert {name.split()[0] for name in STEPS} == set(RULES)
