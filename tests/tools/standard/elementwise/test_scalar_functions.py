"""Layers that map each element: their values and gradients against their definitions, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import diffs_of, net_over, top_of
from tables import rows

X = np.array([[-100.0, -3.5, -1.0, -0.25, 0.0, 0.25, 1.0, 3.5, 60.0]], np.float32)


def diff_of(type_, param="", x=X):
    return diffs_of(net_over(type_, {"x": x}, param), top=np.ones_like(x))["x"]


def test_clip_passes_the_gradient_at_both_ends():
    param = "clip_param { min: -1 max: 1 }"
    np.testing.assert_array_equal(top_of("Clip", {"x": X}, param), X.clip(-1, 1))
    np.testing.assert_array_equal(diff_of("Clip", param), (abs(X) <= 1))


def test_threshold_is_strict_and_passes_no_gradient():
    param = "threshold_param { threshold: 0.25 }"
    np.testing.assert_array_equal(top_of("Threshold", {"x": X}, param), X > 0.25)
    np.testing.assert_array_equal(diff_of("Threshold", param), np.zeros_like(X))


@settings(max_examples=15, deadline=None)
@given(
    base=st.sampled_from([-1.0, 0.5, 2.0, 10.0]), scale=st.floats(-1.5, 1.5, width=32), shift=st.floats(-2, 2, width=32)
)
def test_exp_and_log_take_any_base_scale_and_shift(base, scale, shift):
    x = np.linspace(0.1, 2, 7, dtype=np.float32).reshape(1, 7)
    text = f"base: {base} scale: {scale!r} shift: {shift!r}"
    log_of_base = 1.0 if base == -1 else np.log(base)
    wanted = np.exp(log_of_base * (shift + scale * x.astype(np.float64)))
    np.testing.assert_allclose(top_of("Exp", {"x": x}, f"exp_param {{ {text} }}"), wanted, rtol=2e-6)
    np.testing.assert_allclose(
        diff_of("Exp", f"exp_param {{ {text} }}", x), wanted * log_of_base * scale, rtol=1e-5, atol=1e-30
    )
    inner = shift + scale * x.astype(np.float64)
    if (inner > 0.05).all():
        log = f"log_param {{ {text} }}"
        tops, diffs = top_of("Log", {"x": x}, log), diff_of("Log", log, x)
        np.testing.assert_allclose(tops, np.log(inner) / log_of_base, rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(diffs, scale / inner / log_of_base, rtol=1e-4)


def test_exp_overflows_where_caffe_does():
    # exp(100) · exp(-50) in float32: the first factor is too large
    x = np.full((1, 1), 100, np.float32)
    assert top_of("Exp", {"x": x}, "exp_param { shift: -50 }")[0, 0] == np.inf


@pytest.mark.parametrize(
    ("type_", "param", "message"),
    rows(
        """
        Clip | clip_param { min: 1 }        | give clip_param
        Clip | clip_param { min: 1 max: 0 } | min 1 must not be above max 0
        Exp  | exp_param { base: 0 }        | base 0 must be above 0, or -1 for e
        Exp  | exp_param { base: inf }      | base inf must be above 0, or -1 for e
        Log  | log_param { base: -2 }       | base -2 must be above 0, or -1 for e
        Log  | log_param { base: 1 }        | base 1 has no logarithm
        """
    ),
)
def test_what_has_no_value_is_refused(type_, param, message):
    with pytest.raises(NetError, match=message):
        net_over(type_, {"x": X}, param)
