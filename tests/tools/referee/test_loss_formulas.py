"""The formulas that the referee changes are, unchanged, the layers' losses; and what it changes makes a difference."""

import numpy as np
import pytest
from hypothesis import given, settings

from caffe_layers import LabelError
from caffe_layers.params import complete
from caffe_tools.referee.loss_formulas import FAMILIES, Question, formula
from caffe_tools.referee.mistakes import AS_DEFINED, readings
from layer_cases import CASES, LAYERS, LOSSES, cases


def check(case):
    arrays = case.arrays(dtype=np.float64)
    question = Question(case.layer_class, complete(case.params, case.layer_class.parameters), *arrays)
    loss, gradient = question.answer()
    plain = formula(question)
    with np.errstate(all="ignore"):
        total, slope = plain.sum_and_gradient()
    factor = plain.factor(question.mode)
    assert total * factor == pytest.approx(loss, rel=1e-9, abs=1e-12)
    rounding = 1e-12 * max(1, np.abs(gradient).max(initial=0))
    np.testing.assert_allclose(slope * factor, gradient, rtol=1e-9, atol=rounding)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_formula_gives_the_loss_and_the_gradient_of_the_layer(case):
    check(case)


@settings(max_examples=200)
@given(case=cases())
def test_so_it_does_for_every_configuration(case):
    check(case)


def test_every_family_that_a_loss_declares_has_a_formula_and_none_is_left_over():
    assert {LAYERS[name].family for name in LOSSES} | {""} == set(FAMILIES)


def test_every_mistake_is_one_that_changes_the_loss_or_its_gradient():
    """A reading that computes what is right on every case would never be found, or stand for another."""
    seen, different = set(), set()
    for case in (case for case in CASES if case.layer_class.family):
        question = Question(case.layer_class, complete(case.params, case.layer_class.parameters), *case.arrays())
        with np.errstate(all="ignore"):
            total, gradient = AS_DEFINED.compute(question)
            for reading in readings(question):
                seen.add(reading.name)
                try:
                    other, other_gradient = reading.compute(question)
                except (LabelError, ValueError, IndexError):
                    continue  # as in diagnosis.py: it does not apply
                if not np.isclose(other, total, rtol=1e-9) or not np.allclose(other_gradient, gradient, rtol=1e-9):
                    different.add(reading.name)
    assert seen - different == {AS_DEFINED.name}
