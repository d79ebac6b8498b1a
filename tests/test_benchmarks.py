"""The benchmarks run, compare what they time, and print the tables that their README shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def run(script, *options):
    command = [sys.executable, str(PROJECT / "benchmarks" / script), *map(str, options)]
    environment = {"PYTHONPATH": f"{PROJECT / 'layers'}:{PROJECT / 'tools'}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_losses_measures_every_engine_that_it_is_asked_for(tmp_path):
    file = tmp_path / "losses.json"
    engines = "floor,numpy,naive,onnx"
    printed = run("losses.py", "--workloads", "W6", "--engines", engines, "--rounds", 1, "--json", file)
    assert printed.splitlines()[0] == "| work | floor | numpy | naive | onnx |"
    rows = {row["engine"]: row for row in json.loads(file.read_text())}
    assert set(rows) == {"floor", "numpy", "naive", "onnx"}
    for engine in ("numpy", "naive", "onnx"):
        row = rows[engine]
        assert row["loss_error"] < 1e-6 and row["gradient_error"] < 1e-5
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]


@pytest.mark.parametrize("threads", [1])
def test_train_times_a_step_of_the_exported_graph(tmp_path, threads):
    file = tmp_path / "train.json"
    printed = run("train.py", "--nets", "lenet", "--threads", threads, "--repeats", 1, "--json", file)
    assert "LeNet, 64 digits" in printed and "ONNX Runtime, exported graph" in printed
    assert all(row["largest_difference"] < 1e-3 for row in json.loads(file.read_text()))
