"""What a command imports before it does anything: what computes comes when it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"numpy", "caffe_layers", "rich", "onnx", "onnx_ir", "onnxruntime", "numba"}
LISTS_LAYERS = {"numpy", "caffe_layers", "rich"}
"""What ``layers`` needs: the layers, and a table."""

COMMANDS = {
    "--help": (0, set()),
    "chekc": (2, set()),
    "check --help": (0, set()),
    "check net.prototxt --wieghts F": (2, set()),
    "train --help": (0, set()),
    "upgrade old.prototxt": (0, set()),
    "layers": (0, LISTS_LAYERS),
    "layers ReLU": (0, LISTS_LAYERS),
    "layers SoftmaxLossLayer": (0, LISTS_LAYERS),
}
OLD_NET = 'input: "x" input_dim: [1, 3, 8, 8] layers { name: "r" type: RELU bottom: "x" top: "y" }'
REPORT = """
import sys
try:
    {code}
finally:
    print(*{{name.partition(".")[0] for name in sys.modules}}, file=open("modules", "w"))
"""


def imported(folder, code, *words):
    """The exit code, and the packages that are imported when ``code`` has run in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    command = [sys.executable, "-c", REPORT.format(code=code), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)
    return done, set((folder / "modules").read_text().split())


@pytest.mark.parametrize("line", COMMANDS)
def test_what_computes_is_not_imported_where_nothing_is_computed(line, tmp_path):
    (tmp_path / "old.prototxt").write_text(OLD_NET)
    code, needed = COMMANDS[line]
    done, modules = imported(tmp_path, "from caffe_tools.entry import main; sys.exit(main())", *line.split())
    assert done.returncode == code, done.stderr
    assert modules & HEAVY <= needed


def test_the_package_imports_nothing_until_a_name_is_asked_for(tmp_path):
    assert not imported(tmp_path, "import caffe_tools")[1] & HEAVY


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
def test_an_interruption_while_modules_are_imported_is_one_line(delay, number, tmp_path):
    (tmp_path / "net.prototxt").write_text(OLD_NET)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    code = "from caffe_tools.entry import main; print('there', flush=True); import sys; sys.exit(main())"
    command = [sys.executable, "-c", code, "check", "net.prototxt"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    running.stdout.readline()
    time.sleep(delay)
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    over = told == b"" and running.returncode in (0, -number)  # it had its answer already
    assert over or (running.returncode, told) == (130, b"caffe-layers: interrupted\n")
