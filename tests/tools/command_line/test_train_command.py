"""``caffe-layers train``: what it prints, how it is interrupted, and how it goes on."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.command_line.cli import main
from caffe_tools.command_line.shared import BAD_INPUT, DONE, INTERRUPTED
from caffe_tools.training.training import Training
from nets import inputs, layer
from solver_nets import NET, inner_product, write_solver

ROOT = Path(__file__).resolve().parents[3]


def train(*words):
    """The exit code of the command."""
    return main(["train", *map(str, words)])


def error_of(capsys, *words):
    """What the command says of bad input, in one line."""
    assert train(*words) == BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    return line


def weights(path):
    return [blob for blobs in caffemodel.read(path).values() for blob in blobs]


def assert_same_weights(first, second):
    for mine, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_it_prints_the_lines_of_caffes_log(tmp_path, capsys):
    text = "max_iter: 2 display: 1 test_iter: 1 test_interval: 2 test_compute_loss: true snapshot: 2"
    assert train(write_solver(tmp_path, text)) == DONE
    number = r"[-+.\de]+"
    lines = [
        r"Iteration 0, Testing net \(#0\)",
        f"    Test loss: {number}",
        rf"    Test net output #0: loss = {number} \(\* 1 = {number} loss\)",
        f"Iteration 0, loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        "Iteration 0, lr = 0.1",
        f"Iteration 1, loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        "Iteration 1, lr = 0.1",
        "Snapshot .*run_iter_2.solverstate",
        f"Iteration 2, loss = {number}",
        r"Iteration 2, Testing net \(#0\)",
        f"    Test loss: {number}",
        rf"    Test net output #0: loss = {number} \(\* 1 = {number} loss\)",
        "Optimization Done.",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines)
    for found, pattern in zip(printed, lines, strict=True):
        assert re.fullmatch(pattern, found), found


def test_an_output_of_many_elements_is_shown_by_its_range(tmp_path, capsys):
    text = "max_iter: 1 display: 1"
    train(write_solver(tmp_path, text, NET + inner_product("more", "data", "more", outputs=4)))
    assert re.search("Train net output #1: more = 4×4 values from .* to ", capsys.readouterr().out)


def test_iterations_end_the_run_early_and_it_goes_on_from_its_snapshot(tmp_path):
    solver = write_solver(tmp_path, "max_iter: 6")
    assert train(solver) == DONE
    (tmp_path / "run_iter_6.caffemodel").rename(tmp_path / "whole.caffemodel")
    assert train(solver, "--iterations", 4) == DONE
    assert train(solver, "--snapshot", tmp_path / "run_iter_4.solverstate") == DONE
    assert_same_weights(tmp_path / "run_iter_6.caffemodel", tmp_path / "whole.caffemodel")


def test_an_interruption_ends_the_iteration_writes_a_snapshot_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    solver = write_solver(tmp_path, "max_iter: 8 snapshot_after_train: true")
    train(solver)
    (tmp_path / "run_iter_8.caffemodel").rename(tmp_path / "whole.caffemodel")
    step = Training.step

    def interrupted(training):
        if training.iteration == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(training)

    monkeypatch.setattr(Training, "step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    capsys.readouterr()
    assert train(solver, "--engine", "onnx") == INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is handler
    printed = capsys.readouterr().out
    assert "Stopped after 4 of 8 iterations." in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["caffe-layers", "train"] and "onnx" in command and "--iterations" not in command
    monkeypatch.undo()
    capsys.readouterr()
    assert train(*command[2:]) == DONE
    assert "Optimization Done." in capsys.readouterr().out


def test_an_interrupted_run_of_n_iterations_goes_on_with_those_that_are_left(tmp_path, capsys, monkeypatch):
    solver = write_solver(tmp_path, "max_iter: 8")
    step = Training.step
    monkeypatch.setattr(Training, "step", lambda training: (os.kill(os.getpid(), signal.SIGINT), step(training))[1])
    assert train(solver, "--iterations", 5) == INTERRUPTED
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[command.index("--iterations") + 1] == "4"


def test_a_terminal_shows_a_bar_and_the_same_lines_above_it(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert train(write_solver(tmp_path, "max_iter: 3 display: 3")) == DONE
    shown = terminal.getvalue()
    assert "0/3" in shown and "Iteration 0, loss = " in shown and "Optimization Done." in shown


def test_an_interrupted_run_writes_its_snapshot_though_the_solver_wants_none_at_the_end(tmp_path, monkeypatch):
    solver = write_solver(tmp_path, "max_iter: 8 snapshot_after_train: false")
    step = Training.step
    monkeypatch.setattr(Training, "step", lambda training: (os.kill(os.getpid(), signal.SIGTERM), step(training))[1])
    assert train(solver) == INTERRUPTED
    assert (tmp_path / "run_iter_1.solverstate").is_file()


@pytest.fixture
def hears_hangups():
    """Who runs the tests under nohup ignores SIGHUP, and what they start inherits that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_costs_no_run(number, tmp_path, capsys, monkeypatch):
    """It hangs up twice, and nobody reads what the run prints."""
    solver = write_solver(tmp_path, "max_iter: 8 snapshot_after_train: false display: 1")
    step, before = Training.step, signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(Training, "step", lambda training: (os.kill(os.getpid(), number), step(training))[1])
    snapshot = Training.snapshot
    monkeypatch.setattr(Training, "snapshot", lambda self: (os.kill(os.getpid(), signal.SIGHUP), snapshot(self))[1])
    assert train(solver) == INTERRUPTED
    assert (tmp_path / "run_iter_1.solverstate").is_file()
    assert "--snapshot" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_run_under_nohup_hears_no_hangup(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        step = Training.step
        monkeypatch.setattr(Training, "step", lambda self: (os.kill(os.getpid(), signal.SIGHUP), step(self))[1])
        assert train(write_solver(tmp_path, "max_iter: 3")) == DONE
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hangups")
def test_a_reader_that_is_gone_costs_no_snapshot(tmp_path):
    solver = write_solver(tmp_path, "max_iter: 100000000 display: 1 test_iter: 1 test_interval: 1")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    command = [sys.executable, "-u", "-m", "caffe_tools", "train", solver]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.readline()
    running.send_signal(signal.SIGHUP)
    running.stdout.close()
    running.wait(timeout=60)
    assert list(tmp_path.glob("*.solverstate")), running.stderr.read()


def test_a_run_killed_at_any_moment_goes_on_from_its_last_snapshot(tmp_path):
    solver = write_solver(tmp_path, 'type: "Adam" momentum: 0.9 snapshot: 10 max_iter: 1000000')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    running = subprocess.Popen([sys.executable, "-m", "caffe_tools", "train", solver], env=environment, stdout=-3)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run_iter_30.solverstate").exists():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        running.kill()
        running.wait()
    last = max(int(path.stem.rpartition("_")[2]) for path in tmp_path.glob("run_iter_*.solverstate"))
    resumed = Training(solver)
    resumed.restore(tmp_path / f"run_iter_{last}.solverstate")
    whole = Training(solver)
    for training in (resumed, whole):
        for _ in range(last + 5 - training.iteration):
            training.step()
    for index in range(2):
        np.testing.assert_array_equal(resumed.net.params["ip"][index].data, whole.net.params["ip"][index].data)


def test_training_starts_from_the_weights_given(tmp_path):
    solver = write_solver(tmp_path, "max_iter: 0")
    source = Training(solver, seed=9)
    source.net.save(tmp_path / "from.caffemodel")
    assert train(solver, "--weights", tmp_path / "from.caffemodel") == DONE
    assert_same_weights(tmp_path / "run_iter_0.caffemodel", tmp_path / "from.caffemodel")


def test_the_solvers_own_weights_serve_where_the_command_line_gives_none(tmp_path):
    solver = write_solver(tmp_path, f'max_iter: 0 weights: "{tmp_path / "from.caffemodel"}"')
    Training(solver, seed=9).net.save(tmp_path / "from.caffemodel")
    assert train(solver) == DONE
    assert_same_weights(tmp_path / "run_iter_0.caffemodel", tmp_path / "from.caffemodel")


def test_weights_and_a_snapshot_together_are_refused(tmp_path, capsys):
    solver = write_solver(tmp_path, "")
    assert "not both" in error_of(capsys, solver, "--weights", "a.caffemodel", "--snapshot", "b.solverstate")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (inputs(data=(4, 5)), "layer 'data' (Input): nothing fills its top 'data' of the training net"),
        (layer("data", "Data", "", "data", 'data_param { source: "lmdb" batch_size: 4 }'), "layer 'data' (Data)"),
    ],
)
def test_a_net_that_nothing_fills_is_refused(data, said, tmp_path, capsys):
    net = data + NET[NET.index('layer { name: "target"') :]
    assert said in error_of(capsys, write_solver(tmp_path, "max_iter: 1", net))


def test_bad_input_has_one_line_with_its_place(tmp_path, capsys):
    solver = write_solver(tmp_path, "max_iter: 1 momentun: 0.9")
    assert re.search(r"solver.prototxt:1:\d+: .*'momentun': did you mean 'momentum'", error_of(capsys, solver))
    assert "gone.prototxt: cannot read" in error_of(capsys, tmp_path / "gone.prototxt")
    solver = write_solver(tmp_path, "max_iter: 1")
    assert "gone.solverstate: cannot read" in error_of(capsys, solver, "--snapshot", tmp_path / "gone.solverstate")
