"""The same net in a real Caffe, in a Python of its own: what ``check --against caffe`` compares with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import caffe_layers
from caffe_tools import prototxt
from caffe_tools.check import caffe_peer
from caffe_tools.check.flat_net import flat_net, what_goes_in
from caffe_tools.errors import NetError, one_line
from caffe_tools.files import load_arrays, save_arrays
from caffe_tools.net.keys import Arrays
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.prototxt.messages import PYTHON_PARAM

SILENT_FOR = 600
"""Seconds that a peer may take."""


def run_caffe(net: Net, fed: Arrays, python: str = sys.executable) -> dict[str, np.ndarray]:
    """Forward and, in TRAIN phase, backward in a real Caffe, in the interpreter ``python``.

    ``fed`` are the data, the learnable blobs and the diffs that backward starts from: ``in/…``, ``param/…`` and
    ``top_diff/…``. Raises NetError where there is no Caffe, or it refuses the net.
    """
    for layer in net.layers:
        if isinstance(layer, StandardLayer) and layer.layer.draws_random:
            raise NetError(f"{layer.spec} draws other numbers in Caffe in TRAIN phase: give --phase TEST")
    with tempfile.TemporaryDirectory() as folder:
        place, text = Path(folder), prototxt.to_text(flat_net(net))
        (place / "net.prototxt").write_text(text, encoding="utf-8")
        save_arrays(place / "inputs.npz", what_goes_in(net, fed))
        (place / "ours").mkdir()
        _link(Path(caffe_layers.__file__).parent, place / "ours" / "caffe_layers")
        # in a folder of its own, whose other files hide no module
        script = shutil.copy(caffe_peer.__file__, place / "caffe_peer.py")
        arguments = {
            "net": str(place / "net.prototxt"),
            "phase": net.phase,
            "inputs": str(place / "inputs.npz"),
            "outputs": str(place / "outputs.npz"),
            "stage": str(place / "stage"),
            "backward": net.phase == "TRAIN" and net.runs_backward,
            "ours": str(place / "ours"),
            "users": list(dict.fromkeys([os.getcwd(), os.path.abspath(net.directory)])),
            "modules": list(dict.fromkeys(_python_modules(net))),
        }
        (place / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        done = _run_python(python, [str(script), str(place / "arguments.json")])
        stage = (place / "stage").read_text(encoding="utf-8") if (place / "stage").exists() else ""
        if done.returncode or not (place / "outputs.npz").exists():
            raise NetError(_why_not(python, done, stage, text))
        return load_arrays(place / "outputs.npz")


def _python_modules(net: Net) -> list[str]:
    """Of the Python layers that the peer runs: one that has no bottoms is an Input there."""
    specs = [placed.spec for placed in net.placed if placed.spec.type == "Python" and placed.bottoms]
    return [spec.read("python_param", PYTHON_PARAM).module for spec in specs]


def _link(source: Path, path: Path) -> None:
    try:
        path.symlink_to(source, target_is_directory=True)
    except OSError:
        shutil.copytree(source, path)


def _run_python(python: str, arguments: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            [python, *arguments], capture_output=True, text=True, errors="replace", timeout=SILENT_FOR, check=False
        )
    except OSError as error:
        raise NetError(f"cannot run {python}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NetError(f"Caffe in {python} has not answered for {SILENT_FOR} s") from None


def _why_not(python: str, done: subprocess.CompletedProcess, stage: str, text: str) -> str:
    """What to say of a run that gave nothing, from what it wrote to stderr and the stage that it came to."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = next((line[len(caffe_peer.SAYS) :] for line in lines if line.startswith(caffe_peer.SAYS)), "")
    if said == "no Caffe":
        return f"{python} has no Caffe: name one that has with --caffe-python EXE"
    if not stage:
        why = f" ({one_line(lines[-1])})" if lines else ""
        return f"{python} has no Caffe, or is no Python{why}: name one that has with --caffe-python EXE"
    if said:
        return f"Caffe in {python}: {said}"
    refused = _refused_text(done.stderr, text)
    if refused:
        return f"Caffe in {python} refuses the net: {refused}"
    # Caffe itself ends the process on a failed check, with the reason on a line of its own
    failed = next((line for line in lines if "Check failed" in line or re.match(r"F\d{4}", line)), "")
    if failed:
        return f"Caffe in {python} fails: {one_line(failed)}"
    if done.returncode < 0:
        return f"Caffe in {python} crashes when {stage} ({_signal(-done.returncode)})"
    last = one_line(lines[-1]) if lines else f"exit code {done.returncode}"
    return f"Caffe in {python} fails when {stage}: {last}"


def _refused_text(stderr: str, text: str) -> str:
    """What of the net that Caffe does not know."""
    type_ = re.search(r"Unknown layer type: (\w+)", stderr)
    if type_:
        return f"it has no layer type {type_[1]!r}"
    field = re.search(r'(?:(\d+):\d+ ?: )?Message type "(?:\w+\.)*(\w+)" has no field named "(\w+)"', stderr)
    if field:
        return f"it knows no field {field[3]!r} of a {field[2]}{_at(text, field[1])}"
    other = re.search(r"Error parsing text-format [\w.]+: (\d+):\d+ ?: (.*)", stderr)
    return f"{other[2]}{_at(text, other[1])}" if other else ""


def _at(text: str, line: str | None) -> str:
    """In which layer of ``text`` that line is."""
    before = "\n".join(text.splitlines()[: int(line)]) if line else ""
    names = re.findall(r'^layer \{\s*name: "([^"]*)"', before, re.MULTILINE)
    return f" (layer {names[-1]!r})" if names else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
