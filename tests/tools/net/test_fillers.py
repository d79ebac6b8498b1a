"""Fillers: what values they give. Each is seeded, so each of these statistics is one fixed number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from caffe_tools.net.fillers import FILLERS, fill
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.messages import FILLER
from caffe_tools.prototxt.text import parse

SHAPE = (50, 40, 3, 3)


def filled(text, shape=SHAPE, seed=0):
    filler = fields.read(parse(text), FILLER, "filler")
    return fill(shape, filler, np.random.default_rng(seed), "layer 'conv' (Convolution)")


def error_of(text, shape=SHAPE):
    with pytest.raises(NetError) as raised:
        filled(text, shape)
    return str(raised.value)


@pytest.mark.parametrize("type_", FILLERS)
def test_a_filler_gives_float32_of_the_shape_and_repeats_with_the_seed(type_):
    values = filled(f'type: "{type_}"')
    assert values.shape == SHAPE and values.dtype == np.float32
    np.testing.assert_array_equal(values, filled(f'type: "{type_}"'))


@pytest.mark.parametrize("type_", sorted(set(FILLERS) - {"constant", "bilinear"}))
def test_another_seed_gives_other_values(type_):
    assert not np.array_equal(filled(f'type: "{type_}"'), filled(f'type: "{type_}"', seed=1))


@pytest.mark.parametrize("type_", sorted(set(FILLERS) - {"bilinear"}))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 4)])
def test_a_filler_fills_blobs_of_few_axes(type_, shape):
    values = filled(f'type: "{type_}"', shape)
    assert values.shape == shape and np.isfinite(values).all()


def test_the_constant_filler_is_the_default_and_gives_its_value():
    assert not filled("").any()
    assert (filled("value: 0.25") == np.float32(0.25)).all()


@given(st.floats(-10, 10), st.floats(0, 10))
def test_the_uniform_filler_stays_between_min_and_max(low, width):
    values = filled(f'type: "uniform" min: {low} max: {low + width}', (100,))
    assert np.float32(low) <= values.min() and values.max() <= np.float32(low + width)


def test_the_uniform_filler_goes_from_0_to_1_where_nothing_else_is_said():
    values = filled('type: "uniform"')
    assert values.mean() == pytest.approx(0.5, abs=0.01) and values.std() == pytest.approx(1 / math.sqrt(12), rel=0.01)


def test_the_gaussian_filler_has_its_mean_and_deviation():
    values = filled('type: "gaussian" mean: 2 std: 0.3')
    assert values.mean() == pytest.approx(2, abs=0.01) and values.std() == pytest.approx(0.3, rel=0.02)


def test_a_sparse_gaussian_filler_keeps_that_many_inputs_of_each_output():
    kept = np.count_nonzero(filled('type: "gaussian" sparse: 5', (100, 400)))
    assert kept / 400 == pytest.approx(5, rel=0.05)  # of the 100 x 400 weights each is kept with probability 5 / 100


def test_a_sparse_gaussian_filler_of_0_keeps_none():
    assert not filled('type: "gaussian" sparse: 0').any()


def test_each_row_of_the_positive_unitball_filler_sums_to_1():
    values = filled('type: "positive_unitball"')
    assert values.min() >= 0
    np.testing.assert_allclose(values.reshape(50, -1).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("norm", "fan"),
    [("", 360), ("FAN_IN", 360), ("FAN_OUT", 450), ("AVERAGE", 405)],
    ids=["default", "in", "out", "mean"],
)
def test_the_xavier_filler_is_uniform_up_to_the_root_of_3_by_the_fan(norm, fan):
    values = filled('type: "xavier"' + (f" variance_norm: {norm}" if norm else ""))
    bound = math.sqrt(3 / fan)
    assert np.abs(values).max() == pytest.approx(bound, rel=1e-3) and np.abs(values).max() <= np.float32(bound)
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    ("norm", "fan"), [("", 360), ("FAN_OUT", 450), ("AVERAGE", 405)], ids=["default", "out", "mean"]
)
def test_the_msra_filler_is_normal_with_the_root_of_2_by_the_fan(norm, fan):
    values = filled('type: "msra"' + (f" variance_norm: {norm}" if norm else ""))
    assert values.std() == pytest.approx(math.sqrt(2 / fan), rel=0.02)


def test_the_fan_out_of_a_blob_of_one_axis_is_its_count():
    assert np.abs(filled('type: "xavier" variance_norm: FAN_OUT', (300,))).max() <= np.float32(0.1)


@pytest.mark.parametrize(
    ("size", "ramp"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        (6, [1 / 6, 0.5, 5 / 6, 5 / 6, 0.5, 1 / 6]),
    ],
)
def test_the_bilinear_filler_is_a_symmetric_tent(size, ramp):
    values = filled('type: "bilinear"', (2, 3, size, size))
    for kernel in values.reshape(6, size, size):
        np.testing.assert_allclose(kernel, np.outer(ramp, ramp), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (1, 2, 3, 3, 3)])
def test_the_bilinear_filler_refuses_what_is_no_square_kernel(shape):
    assert f"the bilinear filler needs 4 axes and a square kernel, not the shape {shape}" in error_of(
        'type: "bilinear"', shape
    )


def test_an_unknown_filler_is_an_error_that_lists_those_there_are():
    assert error_of('type: "gausian"') == (
        "layer 'conv' (Convolution): unknown filler type 'gausian': Caffe has constant, uniform, gaussian,"
        " positive_unitball, xavier, msra, bilinear"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "uniform" min: 2 max: 1', "the uniform filler's min 2 must not be above its max 1"),
        ('type: "uniform" min: nan', "the uniform filler's min nan must not be above its max 1"),
        ('type: "gaussian" std: 0', "the gaussian filler's std 0 must be above 0"),
        ('type: "gaussian" std: -0.5', "the gaussian filler's std -0.5 must be above 0"),
        ('type: "gaussian" sparse: -2', "sparse -2 must be 0 or more, and goes with the gaussian filler alone"),
        ('type: "xavier" sparse: 3', "sparse 3 must be 0 or more, and goes with the gaussian filler alone"),
    ],
)
def test_values_that_caffe_refuses_are_errors(text, message):
    assert error_of(text) == f"layer 'conv' (Convolution): {message}"
