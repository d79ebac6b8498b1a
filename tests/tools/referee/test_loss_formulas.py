"""The formulas that the referee changes are, unchanged, the layers' losses."""

import numpy as np
import pytest
from hypothesis import given, settings

from caffe_layers import normalization
from caffe_layers.params import complete
from caffe_tools.referee.loss_formulas import FUNCTIONS, Question, formula
from layer_cases import CASES, LOSS_FUNCTIONS, cases


def check(case):
    arrays = case.arrays(dtype=np.float64)
    question = Question(case.layer_class, complete(case.params, case.layer_class.parameters), *arrays)
    loss, gradient = question.answer()
    plain = formula(question)
    with np.errstate(all="ignore"):
        total, slope = plain.sum_and_gradient()
    factor = normalization.factor(question.mode, plain.count(question.mode))
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


def test_every_loss_has_a_formula():
    assert FUNCTIONS == LOSS_FUNCTIONS
