"""The example's solver trains its net in Caffe."""

import numpy as np
from real_caffe import caffe


def test_the_loss_falls_and_the_test_net_recognises_digits(project_root):
    solver = caffe.SGDSolver("prototxt_examples/lenet_digits_solver.prototxt")
    losses = []
    for _ in range(60):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data.sum()))
    assert solver.iter == 60
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])

    test_net = solver.test_nets[0]
    test_net.share_with(solver.net)
    accuracy = []
    for _ in range(3):
        test_net.forward()
        accuracy.append(float(test_net.blobs["accuracy"].data.sum()))
    assert np.mean(accuracy) > 0.7  # guessing gives 0.1


def test_the_solver_writes_nothing_into_the_project(project_root):
    def files():
        folders = (project_root, project_root / "prototxt_examples", project_root / "prototxt_examples" / "data")
        return {path for folder in folders for path in folder.iterdir()}

    before = files()
    caffe.SGDSolver("prototxt_examples/lenet_digits_solver.prototxt").step(3)
    assert files() == before
