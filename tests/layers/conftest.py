"""What the layers compute is tested with both engines."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="module", params=["numpy", "numba"])
def engine(request):
    """The name of the engine that computes in this test. Modules whose tests are to run once with each say so:
    ``pytestmark = pytest.mark.usefixtures("engine")``; the others run with whichever there is."""
    if request.param == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFFE_LAYERS_ENGINE", request.param)
        yield request.param
