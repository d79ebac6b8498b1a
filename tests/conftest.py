"""What every test may use. It is imported inside a real Caffe too, so it needs pytest alone."""

from pathlib import Path

import pytest

try:
    import hypothesis
except ImportError:
    pass  # tests/in_caffe draws nothing
else:
    # A loaded machine must not fail a test by the clock, and a failure in CI must be the same at home.
    hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project_root(monkeypatch):
    """The project's folder, made the working directory: the examples name their data relative to it."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def shared():
    """The folder of reference data beside the project: skipped where it is not there."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference data in {folder.name}/ beside the project, which is not there")
    return folder
