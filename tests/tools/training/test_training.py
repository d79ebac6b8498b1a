"""Training: Caffe's loop, real Caffe's numbers, two engines, tests, snapshots."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import ExportError, NetError, SolverError
from caffe_tools.net.net import Net
from caffe_tools.training.events import Evaluation, Iteration, Snapshotted
from caffe_tools.training.training import Training
from golden import relative_difference
from nets import layer
from solver_nets import NET, filled, inner_product, solver_of, write_solver

ENGINES = ("layers", "onnx")
QUIET = "snapshot_after_train: false "


def losses_of(training, until):
    return [event.loss for event in training.run(until) if isinstance(event, Iteration)]


def learned(training):
    return {f"{name}/{i}": b.data.copy() for name, bs in training.net.params.items() for i, b in enumerate(bs)}


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)


# Real Caffe


@pytest.mark.parametrize("engine", ENGINES)
def test_real_caffes_run_is_reproduced(engine, shared):
    stem = shared / "golden" / "net_lenet_sgd"
    with np.load(f"{stem}.npz") as stored:
        golden = {key: stored[key] for key in stored.files}
    training = Training(f"{stem}.solver.prototxt", engine=engine)
    for key, value in golden.items():
        if key.startswith("param/"):
            _, name, index = key.split("/")
            training.net.params[name][int(index)].data[...] = value
    for number, loss in enumerate(golden["loss"]):
        for blob in ("data", "label"):
            training.net.blobs[blob].data[...] = golden[f"in/{blob}"][number]
        iteration = training.step()
        assert iteration.loss == pytest.approx(loss, rel=1e-5)
        assert iteration.rate == pytest.approx(golden["lr"][number], rel=1e-6)
        assert_parameters(training, golden, "step1" if number == 0 else None)
    assert training.iteration == training.solver.max_iter == 20
    assert_parameters(training, golden, "final")


def assert_parameters(training, golden, kind):
    for key, value in golden.items():
        if kind and key.startswith(f"{kind}/"):
            _, name, index = key.split("/")
            assert relative_difference(training.net.params[name][int(index)].data, value) < 1e-5, key


# Engines


RICH = (
    filled("data", (6, 4))
    + filled("target", (6, 3))
    + inner_product("a", "data", "a", 'param { name: "w" } param { lr_mult: 0 }', outputs=4)
    + layer("bn", "BatchNorm", "a", "a")
    + layer("drop", "Dropout", "a", "a")
    + inner_product("b", "a", "b", 'param { name: "w" }', outputs=4)
    + inner_product("c", "b", "score")
    + layer("loss", "EuclideanLoss", "score target", "loss", "loss_weight: 2")
    + layer("side", "EuclideanLoss", "b a", "side", "loss_weight: 0.5")
)
"""Shared weights, a bias that does not learn, statistics, random numbers, two losses of other weights than 1."""


@pytest.mark.parametrize("text", ["momentum: 0.9 weight_decay: 0.01", 'type: "Adam" iter_size: 2', "clip_gradients: 1"])
def test_both_engines_train_alike(text):
    solver = solver_of(QUIET + 'base_lr: 0.01 lr_policy: "fixed" ' + text, RICH)
    layers, onnx = (Training(solver, engine=engine) for engine in ENGINES)
    np.testing.assert_allclose(losses_of(onnx, 12), losses_of(layers, 12), rtol=1e-4)
    expected = learned(layers)
    for name, found in learned(onnx).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-4 * np.abs(expected[name]).max(), err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_has_lr_mult_0_keeps_its_bits_and_what_is_shared_stays_shared(engine):
    training = Training(solver_of(QUIET + "momentum: 0.5 weight_decay: 0.1", RICH), engine=engine)
    before = learned(training)
    losses_of(training, 5)
    after = learned(training)
    np.testing.assert_array_equal(after["a/1"], before["a/1"])
    assert not np.array_equal(after["b/1"], before["b/1"])
    np.testing.assert_array_equal(after["a/0"], after["b/0"])


def test_a_blob_shared_under_another_shape_trains_alike_in_both_engines():
    permissive = 'param {{ name: "w" share_mode: PERMISSIVE }} {}'
    net = filled("data", (4, 6)) + filled("target", (4, 6))
    net += inner_product("a", "data", "x", permissive.format(""), outputs=4)
    net += inner_product("b", "x", "y", permissive.format("param { lr_mult: 2 }"), outputs=6)
    net += layer("loss", "EuclideanLoss", "y target", "loss")
    solver = solver_of(QUIET + 'momentum: 0.9 base_lr: 0.01 lr_policy: "fixed"', net)
    runs = [Training(solver, engine=engine) for engine in ENGINES]
    np.testing.assert_allclose(*(losses_of(run, 8) for run in runs), rtol=1e-5)
    for mine, theirs in zip(learned(runs[0]).values(), learned(runs[1]).values(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    first, second = (learned(runs[1])[name] for name in ("a/0", "b/0"))
    np.testing.assert_array_equal(first.reshape(second.shape), second)


def test_a_python_layers_own_blobs_train_alike_in_both_engines(tmp_path, monkeypatch):
    (tmp_path / "gains.py").write_text(
        "import caffe\n\n\nclass Gain(caffe.Layer):\n"
        "    def setup(self, bottom, top):\n"
        "        self.blobs.add_blob(3)\n"
        "        self.blobs[0].data[...] = 2\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = self.blobs[0].data * bottom[0].data\n"
        "    def backward(self, top, down, bottom):\n"
        "        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(axis=0)\n"
        "        bottom[0].diff[...] = self.blobs[0].data * top[0].diff\n"
        "    def onnx(self, op, x): return op.Mul(x, op.parameters[0])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    gain = layer("gain", "Python", "score", "gained", 'python_param { module: "gains" layer: "Gain" }')
    net = NET.replace('bottom: "score"', 'bottom: "gained"')
    net = net.replace('layer { name: "loss"', gain + 'layer { name: "loss"')
    runs = [Training(solver_of(QUIET, net), allow_modules=["gains"], engine=engine) for engine in ENGINES]
    np.testing.assert_allclose(*(losses_of(run, 8) for run in runs), rtol=1e-5)
    gains = [learned(run)["gain/0"] for run in runs]
    np.testing.assert_allclose(*gains, rtol=1e-5)
    assert not (gains[0] == 2).any()


def test_the_graph_is_built_again_when_the_data_has_another_shape():
    losses = []
    for engine in ENGINES:
        training = Training(solver_of(QUIET), engine=engine)
        found = [training.step().loss]
        for rows in (2, 4):
            for name, size in (("data", 5), ("target", 3)):
                training.net.blobs[name].reshape(rows, size)
            found.append(training.step().loss)
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_a_recurrent_layer_asks_for_the_engine_that_keeps_its_state():
    net = filled("data", (3, 2, 4)) + filled("cont", (3, 2)) + filled("target", (3, 2, 5))
    net += layer("lstm", "LSTM", "data cont", "y", 'recurrent_param { num_output: 5 weight_filler { type: "xavier" } }')
    net += layer("loss", "EuclideanLoss", "y target", "loss")
    with pytest.raises(SolverError, match="lstm.*--engine layers"):
        Training(solver_of(QUIET, net), engine="onnx")
    assert np.isfinite(losses_of(Training(solver_of(QUIET, net)), 3)).all()


def test_a_python_layer_without_an_onnx_expression_trains_layer_by_layer_alone(tmp_path, monkeypatch):
    (tmp_path / "doubling.py").write_text(
        "import caffe\n\n\nclass Twice(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, down, bottom): bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = NET.replace('bottom: "score"', 'bottom: "twice"')
    twice = layer("twice", "Python", "score", "twice", 'python_param { module: "doubling" layer: "Twice" }')
    net = net.replace('layer { name: "loss"', twice + 'layer { name: "loss"')
    found = losses_of(Training(solver_of(QUIET, net), allow_modules=["doubling"]), 5)
    assert np.isfinite(found).all()
    with pytest.raises(ExportError, match="Twice has no ONNX expression"):
        losses_of(Training(solver_of(QUIET, net), allow_modules=["doubling"], engine="onnx"), 5)
    with pytest.raises(NetError, match="allow it with --allow-module doubling"):
        Training(solver_of(QUIET, net))


# The loop


SAMPLE_IN_RESHAPE = """
import numpy as np
from caffe_layers.layer import Layer


class SampleInReshape(Layer):
    def setup(self, bottom, top):
        self.samples, self.index = [(4, 3), (6, 3), (4, 3), (5, 3)], 0

    def reshape(self, bottom, top):
        self.data = np.full(self.samples[self.index], 1.0 + self.index)
        top[0].reshape(*self.data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.data
        self.index = (self.index + 1) % 4

    def backward(self, top, propagate_down, bottom):
        pass


class ShapeInForward(SampleInReshape):
    def reshape(self, bottom, top):
        pass

    def setup(self, bottom, top):
        super().setup(bottom, top)
        top[0].reshape(1, 3)

    def forward(self, bottom, top):
        super().reshape(bottom, top)
        super().forward(bottom, top)
"""


@pytest.mark.parametrize("data", ["SampleInReshape", "ShapeInForward"])
def test_a_data_layer_that_loads_its_sample_in_reshape_trains_in_both_engines(data, tmp_path, monkeypatch):
    """As FCN's do; and as those of Faster R-CNN, which give their tops their shapes in forward."""
    (tmp_path / "sample_layers.py").write_text(SAMPLE_IN_RESHAPE)
    monkeypatch.syspath_prepend(tmp_path)
    net = (
        layer("data", "Python", "", "x", f'python_param {{ module: "sample_layers" layer: "{data}" }}')
        + inner_product("ip", "x", "ip", outputs=2)
        + layer("drop", "Dropout", "ip", "ip", "dropout_param { dropout_ratio: 0.2 }")
        + layer("s", "Reduction", "ip", "s", "reduction_param { operation: SUMSQ } loss_weight: 1")
    )
    solver = solver_of('base_lr: 0.001 lr_policy: "fixed" ' + QUIET, net)
    runs = [Training(solver, allow_modules=["sample_layers"], engine=engine) for engine in ENGINES]
    first, second = (losses_of(training, 9) for training in runs)
    assert first == pytest.approx(second, rel=1e-5) and 0 not in first


def test_data_of_many_shapes_keeps_a_few_graphs_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "growing_layers.py").write_text(
        SAMPLE_IN_RESHAPE.replace("[(4, 3), (6, 3), (4, 3), (5, 3)]", "[(n, 3) for n in range(1, 40)]").replace(
            "% 4", "% 39"
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = layer("data", "Python", "", "x", 'python_param { module: "growing_layers" layer: "SampleInReshape" }')
    net += inner_product("ip", "x", "ip", outputs=2) + layer("s", "Reduction", "ip", "s", "loss_weight: 1")
    training = Training(solver_of(QUIET, net), allow_modules=["growing_layers"], engine="onnx")
    with pytest.warns(UserWarning, match="the data .of 'data'. has had 17 different shapes so far") as told:
        losses_of(training, 20)
    assert len(told) == 1 and len(training._engine._graphs) == 16


def test_the_gradient_of_a_parameter_layer_is_that_of_the_last_part_of_a_batch():
    """Its diff is the memory of its top's diff in Caffe, which the reader sets."""
    net = layer("p", "Parameter", "", "w", "parameter_param { shape { dim: 2 } }") + layer(
        "s", "Reduction", "w", "s", "loss_weight: 1"
    )
    for engine in ENGINES:
        training = Training(solver_of("iter_size: 2 " + QUIET, net), engine=engine)
        training.step()
        np.testing.assert_allclose(training.net.params["p"][0].data, -0.05, err_msg=engine)


def test_the_events_come_as_caffe_does_its_work(tmp_path):
    text = "max_iter: 4 test_iter: 2 test_interval: 2 snapshot: 3 display: 2"
    events = list(Training(write_solver(tmp_path, text)).run())
    kinds = [(type(event).__name__, event.iteration) for event in events]
    assert kinds == [
        ("Evaluation", 0),
        ("Iteration", 0),
        ("Iteration", 1),
        ("Evaluation", 2),
        ("Iteration", 2),
        ("Snapshotted", 3),
        ("Iteration", 3),
        ("Snapshotted", 4),
        ("Iteration", 4),
        ("Evaluation", 4),
    ]
    shown = [event for event in events if isinstance(event, Iteration)]
    assert [event.outputs is not None for event in shown] == [True, False, True, False, True]
    assert shown[-1].rate is None
    assert shown[0].outputs[0].name == "loss" and shown[0].outputs[0].values == np.float32(shown[0].loss)


def test_without_test_initialization_the_first_test_waits_for_its_interval(tmp_path):
    text = "max_iter: 3 test_iter: 1 test_interval: 2 test_initialization: false " + QUIET
    tests = [event.iteration for event in Training(write_solver(tmp_path, text)).run() if isinstance(event, Evaluation)]
    assert tests == [2]


def test_the_loss_shown_is_the_mean_of_the_last_average_loss_ones():
    training = Training(solver_of(QUIET + "average_loss: 3"))
    events = list(training.run(5))
    losses = [event.loss for event in events]
    assert [event.smoothed_loss for event in events] == pytest.approx(
        [np.mean(losses[max(0, i - 2) : i + 1]) for i in range(5)]
    )


def test_the_loss_of_an_iteration_is_the_mean_over_iter_size_batches():
    apart = losses_of(Training(solver_of(QUIET + 'base_lr: 0 lr_policy: "fixed"')), 6)
    together = losses_of(Training(solver_of(QUIET + 'iter_size: 3 base_lr: 0 lr_policy: "fixed"')), 2)
    np.testing.assert_allclose(together, np.reshape(apart, (2, 3)).mean(axis=1), rtol=1e-6)


def test_gradients_of_iter_size_batches_are_one_step_by_their_mean():
    small = 'base_lr: 0.001 lr_policy: "fixed" '
    one = Training(solver_of(QUIET + small + "iter_size: 4"))
    before = learned(one)
    losses_of(one, 1)
    # the same four batches, each from the same weights
    apart = Training(solver_of(QUIET + small))
    steps = {name: np.zeros_like(value) for name, value in before.items()}
    for _ in range(4):
        for name, value in before.items():
            layer_name, index = name.split("/")
            apart.net.params[layer_name][int(index)].data[...] = value
        apart.step()
        for name, value in learned(apart).items():
            steps[name] += (value - before[name]) / 4
    for name, value in learned(one).items():
        np.testing.assert_allclose(value - before[name], steps[name], atol=1e-6)


def test_a_run_repeats_to_the_bit_and_another_seed_is_another_run():
    runs = [Training(solver_of(QUIET, RICH), seed=seed) for seed in (4, 4, 5)]
    losses = [losses_of(training, 4) for training in runs]
    assert losses[0] == losses[1] and losses[0] != losses[2]
    assert_same_bits(learned(runs[0]), learned(runs[1]))


def test_the_solvers_random_seed_is_that_of_the_run():
    assert losses_of(Training(solver_of(QUIET + "random_seed: 3")), 2) == losses_of(
        Training(solver_of(QUIET), seed=3), 2
    )


def test_a_net_without_a_loss_is_refused():
    with pytest.raises(SolverError, match="has no loss"):
        Training(solver_of(QUIET, filled("data", (2, 3)) + inner_product("ip", "data", "y")))


# Testing


def test_a_test_gives_the_means_over_its_batches_of_the_weights_being_trained():
    training = Training(solver_of(QUIET + "test_iter: 3 test_interval: 10 test_compute_loss: true"))
    losses_of(training, 2)
    result = training.test()
    twin = Net(training.solver.tests[0].net, "TEST", seed=1)
    twin.share_with(training.net)
    losses = []
    for _ in range(3 + 3):  # the test at iteration 0 took three batches
        twin.forward()
        losses.append(float(twin.blobs["loss"].data))
    assert result.loss == pytest.approx(np.mean(losses[3:]), rel=1e-6)
    (output,) = result.outputs
    assert (output.name, output.loss_weight) == ("loss", 1) and output.values == pytest.approx(result.loss, rel=1e-6)


def test_test_nets_show_the_weights_as_they_are_trained():
    training = Training(solver_of(QUIET + "test_iter: 1 test_interval: 1"))
    assert training.test_nets[0].params["ip"][0].data is training.net.params["ip"][0].data


def test_a_test_output_that_changes_its_shape_is_refused():
    training = Training(solver_of(QUIET + "test_iter: 2 test_interval: 1"))
    net = training.test_nets[0]
    forward, batches = net.forward, iter([1, 2])

    def growing():
        forward()
        net.blobs["loss"].reshape(next(batches))

    net.forward = growing
    with pytest.raises(SolverError, match="'loss' has the shape"):
        training.test()


# Snapshots on their way


def test_snapshots_that_cannot_be_written_are_refused_before_the_first_iteration(tmp_path):
    solver = solver_of(f'snapshot: 1 snapshot_prefix: "{tmp_path / "gone" / "run"}"')
    training = Training(solver)
    with pytest.raises(SolverError, match="there is no folder"):
        next(training.run(1))
    assert training.iteration == 0


def test_a_snapshot_comes_after_training_unless_one_was_just_taken(tmp_path):
    events = list(Training(write_solver(tmp_path, "snapshot: 2 max_iter: 4")).run())
    assert [event.iteration for event in events if isinstance(event, Snapshotted)] == [2, 4]
