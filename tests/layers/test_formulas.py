"""The functional API against the definitions, finite differences and the definitions of other libraries."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_layers import LayerError, blocks, targets
from caffe_layers import functional as F
from layer_cases import CASES, INDEX_LOSSES, LOSSES, MODES, PARAMETERS, Case, cases, own_tests

pytestmark = pytest.mark.usefixtures("engine")

SEEDS = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize("layer", LOSSES)
def test_every_loss_gives_these_tests_what_they_need(layer):
    """A loss without an oracle or without values for a parameter is named here rather than passed over."""
    own = own_tests(layer)
    assert own is not None, (
        f"tests/layers/losses has no test_{Case(layer).function.__name__}.py with the oracle of {layer}"
    )
    assert callable(getattr(own, "oracle", None)), f"{own.__name__}.py has no oracle(scores, labels, weights, **params)"
    known = {"axis", *PARAMETERS, *getattr(own, "VALUES", {})}
    missing = [parameter.name for parameter in Case(layer).layer_class.parameters if parameter.name not in known]
    assert not missing, f"{own.__name__}.py has no VALUES to try for {', '.join(missing)}"


@pytest.mark.parametrize("layer", LOSSES)
def test_the_loss_is_that_of_the_definition(layer):
    @settings(max_examples=60)
    @given(cases(layer), SEEDS)
    def holds(case, seed):
        arrays = case.arrays(seed, np.float64)
        loss, _ = case.function(*arrays, **case.params)
        assert loss == pytest.approx(case.oracle(*arrays, **case.params), rel=1e-12, abs=1e-14)

    holds()


@pytest.mark.parametrize("layer", LOSSES)
def test_the_gradient_is_that_of_finite_differences(layer):
    @settings(max_examples=60)
    @given(cases(layer), SEEDS)
    def holds(case, seed):
        scores, *rest = case.arrays(seed, np.float64)
        _, gradient = case.function(scores, *rest, **case.params)
        for step in (1e-3, 1e-5):  # the smaller one where the larger one comes upon a kink
            expected = _finite_differences(
                lambda x: case.function(x, *rest, **case.params)[0],
                scores,
                case.layer_class.scores_are_probabilities,
                step,
            )
            if np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max() + 1e-12:
                return
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * np.abs(expected).max() + 1e-10)

    holds()


def _finite_differences(function, x, relative, step_size=1e-3):
    """The derivative by five points: its own error is far below the bound of the test."""
    result = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        step = step_size * (x[place] if relative else 1.0)
        values = []
        for offset in (-2, -1, 1, 2):
            moved = x.copy()
            moved[place] += offset * step
            values.append(function(moved))
        result[place] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return result


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_agrees_with_the_definition(case):
    arrays = case.arrays(1)
    loss, gradient = case.function(*arrays, **case.params)
    assert gradient.dtype == np.float32 and gradient.shape == case.shape
    assert loss == pytest.approx(case.oracle(*arrays, **case.params), rel=1e-6)


@pytest.mark.parametrize("shape", [(300, 4), (2, 4, 5, 3)])
@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "i4", "u4", "u8", "f2", "f8", ">i4", ">f4"])
@pytest.mark.parametrize("layer", INDEX_LOSSES)
def test_labels_of_every_dtype_are_read_alike(layer, dtype, shape):
    case = Case(layer, shape, {} if Case(layer).target == "index" else {"target": "index"})
    scores, labels = case.arrays()
    labels = labels % 2
    loss, gradient = case.function(scores, labels, **case.params)
    same_loss, same_gradient = case.function(scores, labels.astype(dtype), **case.params)
    assert same_loss == loss and (same_gradient == gradient).all()


def test_a_focal_exponent_below_one_keeps_the_gradient_finite_and_right():
    scores = np.array([[40.0, -40.0, 3.0], [800.0, -800.0, 0.0]])
    for function, labels in (
        (F.softmax_focal_loss, np.array([0, 0])),
        (F.sigmoid_focal_loss, np.array([[1.0, 0, 1]] * 2)),
    ):
        _, gradient = function(scores, labels, gamma=0.3, normalization="NONE")
        expected = _finite_differences(
            lambda x, f=function, y=labels: f(x, y, gamma=0.3, normalization="NONE")[0], scores, False
        )
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_focal_losses_with_gamma_0_and_no_alpha_are_the_cross_entropies_to_the_last_bit(dtype):
    @settings(max_examples=30)
    @given(cases("SoftmaxFocalLossLayer") | cases("SigmoidFocalLossLayer"), SEEDS)
    def holds(case, seed):
        arrays = case.arrays(seed, dtype)
        plain = {key: value for key, value in case.params.items() if key not in ("alpha", "gamma")}
        function = F.softmax_loss if case.layer.startswith("Softmax") else F.sigmoid_cross_entropy_loss
        loss, gradient = case.function(*arrays, **plain, alpha=None, gamma=0)
        expected_loss, expected_gradient = function(*arrays, **plain)
        assert loss == expected_loss
        np.testing.assert_array_equal(gradient, expected_gradient)

    holds()


# --- what the functional API promises about its arguments ---


@pytest.mark.parametrize("layer", LOSSES)
def test_non_contiguous_arguments_are_taken_and_never_written(layer):
    arrays = Case(layer, (4, 3, 6), {"ignore_label": 2}, "position").arrays(4)
    strided = [np.asfortranarray(np.repeat(array, 2, axis=0))[::2] for array in arrays]
    for array in strided:
        array.flags.writeable = False
    loss, gradient = Case(layer).function(*strided, ignore_label=2)
    expected, expected_gradient = Case(layer).function(*arrays, ignore_label=2)
    assert loss == expected
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("layer", LOSSES)
def test_the_signature_has_the_parameters_of_the_layer_with_their_defaults(layer):
    case = Case(layer)
    keywords = {
        p.name: p.default for p in inspect.signature(case.function).parameters.values() if p.kind is p.KEYWORD_ONLY
    }
    assert keywords == {parameter.name: parameter.default for parameter in case.layer_class.parameters}


@pytest.mark.parametrize("layer", LOSSES)
def test_work_in_blocks_gives_what_one_block_gives(layer, monkeypatch):
    for shape in ((50, 4), (2, 4, 30), (5, 4, 3, 2)):
        case = Case(layer, shape, {"ignore_label": 2, "normalization": "VALID"}, "position")
        whole, whole_gradient = case.function(*case.arrays(5, np.float64), **case.params)
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "BLOCK", 40)
            loss, gradient = case.function(*case.arrays(5, np.float64), **case.params)
        assert loss == pytest.approx(whole, rel=1e-14)
        np.testing.assert_allclose(gradient, whole_gradient, rtol=1e-14, atol=1e-17)


@pytest.mark.parametrize("layer", LOSSES)
def test_targets_treated_as_few_give_what_many_give(layer):
    """Few targets that are not 0, among thousands, are patched into the result for none: here, any targets are."""

    @settings(max_examples=100)
    @given(cases(layer), SEEDS)
    def holds(case, seed):
        arrays = case.arrays(seed, np.float64)
        loss, gradient = case.function(*arrays, **case.params)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(targets, "FEW", 1)
            patch.setattr(targets, "SMALL", 0)
            of_few, gradient_of_few = case.function(*arrays, **case.params)
        assert of_few == pytest.approx(loss, rel=1e-12, abs=1e-300)
        np.testing.assert_allclose(gradient_of_few, gradient, rtol=1e-11, atol=1e-14 * np.abs(gradient).max(initial=0))

    holds()


@pytest.mark.parametrize("layer", LOSSES)
def test_an_empty_batch_gives_zero(layer):
    for shape in ((0, 3), (0, 3, 4), (2, 3, 0)):
        for mode in (None, "WEIGHT", "POSITIVES", "FULL"):
            case = Case(layer, shape, {"normalization": mode})
            loss, gradient = case.function(*case.arrays(), **case.params)
            assert loss == 0 and gradient.shape == shape


@pytest.mark.parametrize("layer", LOSSES)
def test_where_everything_is_ignored_loss_and_gradient_are_zero(layer):
    for mode in (None, *MODES):
        case = Case(layer, (4, 3, 2), {"ignore_label": 1, "normalization": mode})
        scores, labels = case.arrays()
        loss, gradient = case.function(scores, np.ones_like(labels), **case.params)
        assert loss == 0 and not gradient.any()


def test_integers_and_lists_are_scores_of_float64_but_half_precision_is_refused():
    loss, gradient = F.softmax_loss([[1, 2, 3]], [2])
    assert gradient.dtype == np.float64 and loss == pytest.approx(0.4076059644443804)
    with pytest.raises(LayerError, match="softmax_loss: scores must be float32 or float64, not float16"):
        F.softmax_loss(np.zeros((1, 3), np.float16), [2])
