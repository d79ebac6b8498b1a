"""What the layers compute is tested with both engines."""

from __future__ import annotations

import importlib.util

import pytest

COMPUTING = (
    "test_formulas",
    "test_numbers",
    "test_layers",
    "test_bad_input",
    "test_multi_label_sins",
    "test_recorded_losses",
    "test_speed",
)
"""The modules whose tests run once with each engine; the others run with whichever there is."""


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__ in COMPUTING:
        metafunc.parametrize("engine", ["numpy", "numba"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine(request):
    """The name of the engine that computes in this test, or None for whichever there is."""
    name = getattr(request, "param", None)
    if name is None:
        yield None
        return
    if name == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFFE_LAYERS_ENGINE", name)
        yield name
