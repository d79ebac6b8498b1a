"""Training that meets NaN or infinity: where it says that they appear, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.binaryproto.solverstate import read_solver_state
from caffe_tools.command_line.cli import main
from caffe_tools.training.not_finite import NotFiniteError, is_finite
from caffe_tools.training.training import Training
from nets import layer
from solver_nets import NET, filled, inner_product, solver_of, write_solver

ENGINES = ("layers", "onnx")
DIVERGES = 'base_lr: 1e6 lr_policy: "fixed" max_iter: 40 '
LOG = (
    filled("data", (4, 5))
    + inner_product("ip", "data", "score")
    + layer("drop", "Dropout", "score", "score")
    + layer("log", "Log", "score", "log")
    + layer("sum", "Reduction", "log", "loss", "loss_weight: 1")
)
"""The logarithm of negative numbers, behind a layer in place that draws random numbers."""


def met(training, until=None):
    """The error that the run ends with."""
    with pytest.raises(NotFiniteError) as raised:
        list(training.run(until))
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_diverges_says_where_and_keeps_its_last_good_snapshot(engine, tmp_path):
    training = Training(write_solver(tmp_path, DIVERGES + "snapshot: 1"), engine=engine)
    error = met(training)
    assert error.layer in str(error) and f"iteration {error.iteration}: " in str(error)
    assert 0 < error.iteration < 20
    states = sorted(tmp_path.glob("*.solverstate"))
    assert len(states) >= error.iteration
    for state in states:
        assert all(np.isfinite(array).all() for array in read_solver_state(state).history)
        weights = caffemodel.read(state.with_suffix(".caffemodel"))
        assert all(np.isfinite(array).all() for blobs in weights.values() for array in blobs)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_layer_whose_bottoms_are_finite_is_named(engine):
    error = met(Training(solver_of("max_iter: 3 snapshot_after_train: false", LOG), engine=engine))
    assert error.layer == "log" and error.iteration == 0
    assert "layer 'log' (Log) gives NaN in its top 'log', though its bottoms are finite" in str(error)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_not_finite_are_named(engine):
    training = Training(solver_of("max_iter: 3 snapshot_after_train: false"), engine=engine)
    training.net.params["ip"][1].data[1] = np.inf
    error = met(training)
    assert "gives infinity in its top 'score': its learnable blob 'ip/1' is not finite" in str(error)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_part_of_a_batch_is_watched_too(engine):
    training = Training(solver_of("max_iter: 3 iter_size: 2 snapshot_after_train: false"), engine=engine)
    run, calls = training._engine.forward_backward, []

    def spoiled():
        calls.append(run())
        return np.inf if len(calls) == 4 else calls[-1]

    training._engine.forward_backward = spoiled
    error = met(training)
    assert error.iteration == 1 and len(calls) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_data_that_is_not_finite_is_named(engine):
    net = NET.replace('data_filler { type: "gaussian" }', "data_filler { value: inf }", 1)
    error = met(Training(solver_of("max_iter: 3 snapshot_after_train: false", net), engine=engine))
    assert error.layer == "data" and "infinity in its top 'data': the data is not finite" in str(error)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_stops_before_the_update(engine, tmp_path):
    net = (
        filled("data", (4, 5))
        + inner_product("ip", "data", "score")
        + layer("zero", "Scale", "score", "zero", "scale_param { filler { value: 0 } }")
        + layer("root", "Power", "zero", "root", "power_param { power: 0.5 }")
        + layer("sum", "Reduction", "root", "loss", "loss_weight: 1")
    )
    training = Training(write_solver(tmp_path, "max_iter: 3", net), engine=engine)
    before = training.net.params["ip"][0].data.copy()
    error = met(training)
    assert "backward of " in str(error) and error.iteration == 0
    assert error.layer == ("root" if engine == "layers" else "zero")
    np.testing.assert_array_equal(training.net.params["ip"][0].data, before)
    assert not list(tmp_path.glob("*.solverstate"))  # nothing has been trained yet


def test_an_update_that_is_not_finite_is_told_from_a_gradient(tmp_path):
    training = Training(write_solver(tmp_path, 'base_lr: 1e38 lr_policy: "fixed" max_iter: 3'))
    training.net.params["ip"][0].data[...] = 100
    error = met(training)
    assert error.layer == "ip" and "the update, at a learning rate of 1e+38, leaves " in str(error)
    assert not list(tmp_path.glob("*.solverstate"))  # the state before it is gone


def test_a_history_that_is_not_finite_is_named():
    training = Training(solver_of('type: "AdaGrad" max_iter: 3 snapshot_after_train: false'))
    training.updater.history[1][...] = np.inf
    assert "in the history of the learnable blob 'ip/1'" in str(met(training))


def test_a_test_net_is_watched_too():
    net = NET + layer("log", "Power", "score", "root", "power_param { power: 0.5 } include { phase: TEST }")
    training = Training(solver_of("max_iter: 3 test_iter: 2 test_interval: 1 snapshot_after_train: false", net))
    error = met(training)
    assert str(error).startswith("iteration 0, test net #0: ") and error.layer == "log"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_option_trains_on_and_says_it_once(engine):
    training = Training(solver_of(DIVERGES + "snapshot_after_train: false"), engine=engine, keep_going=True)
    with pytest.warns(UserWarning, match="iteration .*; training goes on") as told:
        list(training.run())
    assert len(told) == 1 and training.iteration == 40


def test_statistics_are_as_they_were_after_the_search():
    net = (
        filled("data", (4, 5))
        + layer("bn", "BatchNorm", "data", "n")
        + inner_product("ip", "n", "score")
        + layer("log", "Log", "score", "log")
        + layer("sum", "Reduction", "log", "loss", "loss_weight: 1")
    )
    training = Training(solver_of("max_iter: 3 snapshot_after_train: false", net))
    assert met(training).layer == "log"
    assert training.net.params["bn"][2].data[0] == 1  # one forward pass


def test_a_snapshot_that_is_there_is_not_written_again(tmp_path):
    solver = write_solver(tmp_path, DIVERGES + "snapshot: 100")
    number = met(Training(solver)).iteration
    (state,) = tmp_path.glob("*.solverstate")
    assert state.name == f"run_iter_{number}.solverstate"
    written = state.stat().st_mtime_ns
    met(Training(solver))
    assert state.stat().st_mtime_ns == written


def test_the_command_stops_with_exit_1_and_one_line(tmp_path, capsys):
    solver = write_solver(tmp_path, DIVERGES)
    assert main(["train", str(solver)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("caffe-layers: iteration ") and "the last good snapshot is " in line
    assert line.endswith("--keep-going trains on")
    assert main(["train", str(solver), "--keep-going"]) == 0
    assert "training goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [([1, 2], True), ([3e38, 3e38], True), ([3e38, -3e38, np.inf], False), ([np.nan, 1], False), ([], True)],
)
def test_the_sum_tells_unless_it_overflows(numbers, finite):
    assert is_finite(np.array(numbers, np.float32)) is finite
