"""Snapshots: a run that is resumed has the numbers of one that was never interrupted, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers.layer import LayerError
from caffe_tools.binaryproto import caffemodel
from caffe_tools.binaryproto.solverstate import SolverState, read_solver_state, write_solver_state
from caffe_tools.errors import SolverError
from caffe_tools.training.events import Evaluation, Iteration
from caffe_tools.training.training import Training
from nets import layer
from solver_nets import NET, filled, inner_product, write_solver

SOURCE = '"source": "prototxt_examples/data/digits_train.npz", "batch_size": 400'


def digits(more: str, phase: str) -> str:
    text = f'python_param {{ module: "caffe_layers" layer: "NpzDataLayer" param_str: \'{{{SOURCE}{more}}}\' }}'
    return layer("digits", "Python", "", "pixels label", f"{text} include {{ phase: {phase} }}")


DIGITS = (
    digits(', "shuffle": true', "TRAIN")
    + digits("", "TEST")
    + layer("scaled", "Power", "pixels", "scaled", "power_param { scale: 0.0625 }")
    + filled("noise", (400, 1, 8, 8))
    + layer("noisy", "Eltwise", "scaled noise", "noisy", "eltwise_param { coeff: 1 coeff: 0.1 }")
    + layer("bn", "BatchNorm", "noisy", "bn")
    + layer("drop", "Dropout", "bn", "bn")
    + inner_product("ip", "bn", "score", outputs=10)
    + layer("loss", "SoftmaxWithLoss", "score label", "loss")
)
"""Everything that has a state: shuffled data (1497 digits, four batches an epoch), drawn data, statistics, Dropout."""
TEXT = (
    'type: "Adam" base_lr: 0.003 gamma: 0.5 lr_policy: "multistep" stepvalue: 3 stepvalue: 4 weight_decay: 0.001'
    " average_loss: 4 max_iter: 12 test_iter: 2 test_interval: 4 momentum: 0.9 "
)


def numbers(events):
    """The numbers of a run: losses, rates, test results."""
    found = []
    for event in events:
        if isinstance(event, Iteration):
            found.append((event.iteration, event.loss, event.smoothed_loss, event.rate))
        elif isinstance(event, Evaluation):
            found.append((event.iteration, *[float(output.values) for output in event.outputs]))
    return found


def learned(training):
    return [blob.data.copy() for blobs in training.net.params.values() for blob in blobs]


@pytest.mark.usefixtures("project_root")
@pytest.mark.parametrize("engine", ["layers", "onnx"])
@pytest.mark.parametrize("stopped_at", [5, 8])
def test_a_resumed_run_has_the_numbers_of_an_uninterrupted_one(engine, stopped_at, tmp_path):
    solver = write_solver(tmp_path, TEXT, DIGITS)
    whole = Training(solver, engine=engine)
    expected = numbers(whole.run())

    first = Training(solver, engine=engine)
    found = []
    for event in first.run():
        found += numbers([event])
        if first.iteration == stopped_at:
            first.stop()
    second = Training(solver, engine=engine, seed=99)
    second.restore(tmp_path / f"run_iter_{stopped_at}.solverstate")
    assert second.iteration == stopped_at
    found += numbers(second.run())

    assert found == expected
    for mine, theirs in zip(learned(second), learned(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(second.updater.history, whole.updater.history, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("project_root")
def test_a_run_stopped_in_a_test_makes_that_test_again_from_its_first_batch(tmp_path):
    solver = write_solver(tmp_path, TEXT, DIGITS)
    expected = numbers(Training(solver).run())
    first = Training(solver)
    forward, passes = first.test_nets[0].forward, []

    def stopping():
        passes.append(forward())
        if len(passes) == 3:  # the first batch of the test at iteration 4
            first.stop()

    first.test_nets[0].forward = stopping
    found = numbers(first.run())
    assert first.iteration == 4
    second = Training(solver)
    second.restore(tmp_path / "run_iter_4.solverstate")
    assert found + numbers(second.run()) == expected


def test_a_recurrent_layers_state_is_carried_over(tmp_path):
    net = filled("data", (3, 2, 4)) + filled("target", (3, 2, 5))
    goes_on = "dummy_data_param { shape { dim: 3 dim: 2 } data_filler { value: 1 } }"
    net += layer("cont", "DummyData", "", "cont", goes_on)
    net += layer("lstm", "LSTM", "data cont", "y", 'recurrent_param { num_output: 5 weight_filler { type: "xavier" } }')
    net += layer("loss", "EuclideanLoss", "y target", "loss")
    solver = write_solver(tmp_path, "max_iter: 6 snapshot: 3", net)
    expected = numbers(Training(solver).run())
    second = Training(solver)
    second.restore(tmp_path / "run_iter_3.solverstate")
    assert numbers(second.run()) == expected[3:]


def test_a_snapshot_holds_weights_that_caffe_reads_and_names_them(tmp_path):
    training = Training(write_solver(tmp_path, "max_iter: 2"))
    list(training.run())
    state = read_solver_state(tmp_path / "run_iter_2.solverstate")
    assert (state.iteration, state.learned_net) == (2, str(tmp_path / "run_iter_2.caffemodel"))
    stored = caffemodel.read(state.learned_net)
    for mine, theirs in zip(learned(training), stored["ip"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_weights_that_have_moved_with_their_solverstate_are_found_beside_it(tmp_path):
    training = Training(write_solver(tmp_path, "max_iter: 2"))
    list(training.run())
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in tmp_path.glob("run_iter_2.*"):
        path.rename(moved / path.name)
    second = Training(tmp_path / "solver.prototxt")
    second.restore(moved / "run_iter_2.solverstate")
    np.testing.assert_array_equal(learned(second)[0], learned(training)[0])
    (moved / "run_iter_2.caffemodel").unlink()
    with pytest.raises(SolverError, match="goes with the weights .*, which are neither there nor in"):
        second.restore(moved / "run_iter_2.solverstate")


def test_a_snapshot_of_caffes_own_is_resumed_with_a_note_that_data_starts_anew(tmp_path):
    training = Training(write_solver(tmp_path, "max_iter: 2 momentum: 0.9"))
    list(training.run())
    (tmp_path / "run_iter_2.runstate.npz").unlink()
    second = Training(tmp_path / "solver.prototxt")
    with pytest.warns(UserWarning, match="there is no .*runstate.npz: data and random numbers start anew"):
        second.restore(tmp_path / "run_iter_2.solverstate")
    assert second.iteration == 2
    np.testing.assert_array_equal(learned(second)[0], learned(training)[0])
    np.testing.assert_array_equal(second.updater.history[0], training.updater.history[0])


def test_a_run_state_that_belongs_to_other_weights_is_not_used(tmp_path):
    solver = write_solver(tmp_path, "max_iter: 2")
    list(Training(solver).run())
    other = Training(solver, seed=7)
    other.net.save(tmp_path / "run_iter_2.caffemodel")
    with pytest.warns(UserWarning, match="belongs to other weights"):
        other.restore(tmp_path / "run_iter_2.solverstate")


def test_python_data_without_a_state_is_noted(tmp_path, monkeypatch):
    (tmp_path / "ones_data.py").write_text(
        "import caffe\n\n\nclass Ones(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(4, 5)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 1\n"
        "    def backward(self, top, down, bottom): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = layer("data", "Python", "", "data", 'python_param { module: "ones_data" layer: "Ones" }')
    solver = write_solver(tmp_path, "max_iter: 1", net + NET[NET.index('layer { name: "target"') :])
    list(Training(solver, allow_modules=["ones_data"]).run())
    with pytest.warns(UserWarning, match="'data' .Python. has no get_state.. and set_state..: its data starts anew"):
        Training(solver, allow_modules=["ones_data"]).restore(tmp_path / "run_iter_1.solverstate")


@pytest.mark.parametrize(
    ("text", "net", "said"),
    [
        ('type: "Adam"', NET, "holds 2 history blobs, but Adam needs 4 for the 2 learnable blobs"),
        ("", NET.replace("num_output: 3", "num_output: 6").replace("dim: 4 dim: 3", "dim: 4 dim: 6"), "history blob 0"),
    ],
)
def test_the_state_of_another_solver_or_net_is_refused(text, net, said, tmp_path):
    list(Training(write_solver(tmp_path, "max_iter: 1")).run())
    other = Training(write_solver(tmp_path, text, net))
    with pytest.raises(SolverError, match=said):
        other.restore(tmp_path / "run_iter_1.solverstate")


@pytest.mark.usefixtures("project_root")
def test_the_state_of_other_data_is_refused(tmp_path):
    list(Training(write_solver(tmp_path, TEXT, DIGITS)).run(1))
    net = DIGITS.replace("digits_train", "digits_test")
    with pytest.raises(Exception, match="the state is that of 1497 samples") as raised:
        Training(write_solver(tmp_path, TEXT, net)).restore(tmp_path / "run_iter_1.solverstate")
    assert isinstance(raised.value.__cause__, LayerError)


def test_a_kill_while_a_snapshot_is_written_leaves_none_that_is_mixed(tmp_path, monkeypatch):
    solver = write_solver(tmp_path, "max_iter: 2")
    list(Training(solver).run())
    again = Training(solver, seed=5)

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("caffe_tools.training.snapshot.write_solver_state", killed)
    with pytest.raises(KeyboardInterrupt):
        list(again.run())
    assert sorted(path.name for path in tmp_path.glob("run_iter_2.*")) == [
        "run_iter_2.caffemodel",
        "run_iter_2.runstate.npz",
    ]


def test_a_solverstate_without_weights_resumes_the_history_alone(tmp_path):
    training = Training(write_solver(tmp_path, ""))
    history = [np.full(array.shape, 2, np.float32) for array in training.updater.history]
    write_solver_state(tmp_path / "x.solverstate", SolverState(5, "", 0, history))
    before = learned(training)
    with pytest.warns(UserWarning):
        training.restore(tmp_path / "x.solverstate")
    assert training.iteration == 5 and (training.updater.history[0] == 2).all()
    np.testing.assert_array_equal(learned(training)[0], before[0])
