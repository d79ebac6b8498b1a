"""What the layers compute is tested with both engines."""

from __future__ import annotations

import importlib.util
import os

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
        metafunc.fixturenames.append("engine")
        metafunc.parametrize("engine", ["numpy", "numba"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def engine(request):
    """The name of the engine that computes in this test."""
    if request.param == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    before = os.environ.get("CAFFE_LAYERS_ENGINE")
    os.environ["CAFFE_LAYERS_ENGINE"] = request.param
    yield request.param
    del os.environ["CAFFE_LAYERS_ENGINE"]
    if before is not None:
        os.environ["CAFFE_LAYERS_ENGINE"] = before
