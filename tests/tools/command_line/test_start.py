"""What a command imports before it does anything: what computes comes when it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
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
