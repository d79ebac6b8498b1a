"""LeNet learns real handwritten digits, from the examples' own solvers, with three losses."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.training.events import Evaluation, Iteration
from caffe_tools.training.training import Training

pytestmark = pytest.mark.usefixtures("project_root")


def trained(name, until):
    """The example's run up to that iteration, and its last test's outputs."""
    training = Training(f"prototxt_examples/{name}_solver.prototxt", engine="onnx")
    *_, last = (event for event in training.run(until) if isinstance(event, Evaluation))
    assert last.iteration == until <= training.solver.max_iter
    return training, {output.name: output.values for output in last.outputs}


@pytest.mark.parametrize(("name", "until"), [("lenet_digits", 400), ("lenet_digits_focal", 200)])
def test_lenet_recognises_digits(name, until):
    _, outputs = trained(name, until)
    assert outputs["accuracy"] >= 0.97


def test_lenet_tells_which_digits_are_in_a_picture_of_two():
    training, _ = trained("lenet_digits_sigmoid", 200)
    net, right = training.test_nets[0], []
    for _ in range(3):
        net.forward()
        right.append((net.blobs["probability"].data > 0.5) == (net.blobs["label"].data > 0.5))
    assert np.mean(right) >= 0.97


def test_lenet_learns_layer_by_layer_too_with_the_losses_of_the_graph():
    def losses(engine, until):
        run = Training("prototxt_examples/lenet_digits_solver.prototxt", engine=engine)
        return [event.loss for event in run.run(until) if isinstance(event, Iteration)]

    found = losses("layers", 60)
    np.testing.assert_allclose(found[:10], losses("onnx", 10)[:10], rtol=1e-4)
    assert np.mean(found[-10:]) < 0.4 * np.mean(found[:10])


@pytest.mark.parametrize("engine", ["layers", "onnx"])
@pytest.mark.parametrize("name", ["lenet_digits", "lenet_digits_sigmoid", "lenet_digits_focal"])
def test_a_run_repeats_to_the_bit(name, engine):
    paths = []
    for _ in range(2):
        training = Training(f"prototxt_examples/{name}_solver.prototxt", engine=engine)
        losses = [training.step().loss for _ in range(8)]
        paths.append((losses, [item.blob.data.copy() for item in training.updater.blobs]))
    (first, blobs), (second, others) = paths
    assert first == second
    for mine, theirs in zip(blobs, others, strict=True):
        np.testing.assert_array_equal(mine, theirs)
