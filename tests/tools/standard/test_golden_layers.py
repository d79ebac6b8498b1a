"""Every layer that a real Caffe ran alone: the standard layers give its numbers, forward and backward."""

from __future__ import annotations

import pytest

import golden


@pytest.mark.parametrize("case", golden.parameters("layer"))
def test_a_layer_gives_the_numbers_of_a_real_caffe(case):
    net, arrays = golden.computed(case)
    assert golden.disagreements(net, arrays, tolerance=0 if case.is_exact else 1e-5) == {}
