"""What every test may use. It is imported inside a real Caffe too, so it needs pytest alone."""

import importlib.util
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


def pytest_configure(config):
    if hasattr(config, "workerinput") and importlib.util.find_spec("numba") and importlib.util.find_spec("fcntl"):
        compile_once_per_run(Path(config.cache.mkdir("compiling")))


def compile_once_per_run(locks):
    """While a worker of pytest-xdist compiles a kernel, others that need it wait, and read it from numba's cache."""
    import fcntl

    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    compile_alone = Dispatcher.compile

    def compile(self, signature):
        # In this order, threads cannot wait for each other: numba's own lock first, a callee's file after its caller's.
        with global_compiler_lock, (locks / self.py_func.__qualname__).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_alone(self, signature)

    Dispatcher.compile = compile


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
