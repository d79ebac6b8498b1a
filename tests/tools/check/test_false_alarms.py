"""Nets that were said to differ though they do not, and what a Caffe records of them (shared/field/false_alarm)."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.check.check import check
from caffe_tools.check.opencv_peer import in_caffes_order, run_opencv
from caffe_tools.command_line.cli import main
from caffe_tools.files import load_arrays
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.draw_weights import draw_weights
from caffe_tools.net.net import Net
from nets import drawn_net, inputs, layer

RECORDED = ["acc_in_train", "residual_train", "mult_loss", "first_scale", "alias_simple"]
OPENCV_AGREES = ["fused_relu", "fused_prelu", "nothing_found", "padded_rows"]


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_caffe_recorded_agrees(name, shared, capsys):
    path = shared / "field" / "false_alarm" / f"caffe_{name}"
    assert main(["check", f"{path}.prototxt", "--inputs", f"{path}.npz", "--against", f"{path}.npz"]) == 0
    assert "compared" not in capsys.readouterr().out


@pytest.mark.parametrize("name", RECORDED)
def test_a_wrong_number_in_such_a_record_is_found(name, shared, tmp_path):
    path = shared / "field" / "false_alarm" / f"caffe_{name}"
    arrays = load_arrays(f"{path}.npz")
    unread = {"diff/x", "diff/ip_ip_0_split_0"}  # there Scale and Accuracy compute
    for key in [key for key in arrays if key.startswith(("data/", "diff/", "pdiff/")) and key not in unread]:
        wrong = arrays[key].copy()
        wrong.flat[-1] += 0.01 * max(1, np.abs(wrong).max())
        np.savez(tmp_path / "wrong.npz", **{**arrays, key: wrong})
        command = ["check", f"{path}.prototxt", "--inputs", f"{path}.npz", "--against", str(tmp_path / "wrong.npz")]
        assert main(command) == 1, key


@pytest.mark.parametrize("name", ["rois_drawn", "zeros_deploy", "zeros_train", "untrained_batchnorm", "parameter"])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_net_without_weights_agrees_on_numbers_that_say_something(name, seed, shared, capsys):
    assert main(["check", str(shared / "field" / "false_alarm" / f"{name}.prototxt"), "--seed", seed]) == 0
    assert "nothing" not in capsys.readouterr().out


@pytest.mark.parametrize("name", OPENCV_AGREES)
def test_opencv_agrees_where_it_fuses_layers_or_pads_rows(name, shared, capsys):
    pytest.importorskip("cv2", reason="needs the optional OpenCV")
    path = shared / "field" / "false_alarm" / f"opencv_{name}.prototxt"
    assert main(["check", str(path), "--against", "opencv"]) == 0, capsys.readouterr().out


def test_a_default_of_opencvs_is_a_difference_and_is_explained(shared, capsys):
    pytest.importorskip("cv2", reason="needs the optional OpenCV")
    path = shared / "field" / "false_alarm" / "opencv_clip_default.prototxt"
    assert main(["check", str(path), "--against", "opencv"]) == 1
    assert "does not give clip: Caffe's default is false, OpenCV's is true" in capsys.readouterr().out


@pytest.mark.parametrize("clip", ["true", "false"])
def test_where_clip_is_given_opencv_agrees_without_a_note(clip):
    pytest.importorskip("cv2", reason="needs the optional OpenCV")
    text = inputs(data=(1, 3, 32, 32), map=(1, 2, 4, 4))
    text += layer("pb", "PriorBox", "map data", "pb", f"prior_box_param {{ min_size: 10 variance: 0.1 clip: {clip} }}")
    for result in check(drawn_net(text, "TEST"), run_opencv, "opencv"):
        assert result.agrees and not result.notes


def test_opencvs_rows_stand_in_caffes_order():
    rows = np.array([[0, 2, 0.9, 0, 0, 1, 1], [0, 1, 0.8, 0, 0, 1, 1], [0, 1, 0.85, 0, 0, 1, 1], [0] * 7], np.float32)
    found = in_caffes_order(rows.reshape(1, 1, 4, 7), 1)
    np.testing.assert_allclose(found[0, 0, :, 1:3], [[1, 0.85], [1, 0.8], [2, 0.9]])
    nothing = in_caffes_order(np.zeros((1, 1, 5, 7), np.float32), 2)
    np.testing.assert_array_equal(nothing[0, 0], [[0] + [-1] * 6, [1] + [-1] * 6])


def test_scratch_of_a_layer_says_nothing_but_a_diff_elsewhere_does():
    text = inputs(x=(3, 4), t=(3,)) + layer("sc", "Scale", "x", "xs") + layer("l", "SoftmaxWithLoss", "xs t", "loss")
    net = drawn_net(text)
    ours, _ = check(net, {"diff/x": np.ones((3, 4)), "data/xs": np.asarray(net.blobs["x"].data)}, "theirs")
    assert [row.key for row in ours.rows] == ["data/xs"] and ours.agrees


def test_a_net_with_weights_keeps_them(shared):
    path = shared / "models" / "mnist_lenet"
    net = Net(f"{path}.prototxt", "TEST", weights=f"{path}.caffemodel")
    before = {name: blob.data.copy() for name, blob in net.learnable.items()}
    draw_inputs(net, ())
    draw_weights(net)
    for name, data in before.items():
        np.testing.assert_array_equal(net.learnable[name].data, data)


LARGE_LOSS = inputs(x=(300, 400), t=(300, 400)) + layer("loss", "EuclideanLoss", "x t", "loss")


@pytest.mark.parametrize("off, agrees", [(1 - 5e-4, True), (0.9, False), (1.01, False)])
def test_a_large_sum_of_float32_is_held_against_one_in_float64(off, agrees):
    net = drawn_net(LARGE_LOSS, "TEST")
    x, t = (net.blobs[name].data.astype(np.float64) for name in "xt")
    loss = float(np.square(x - t).sum() / 600)
    for result in check(net, {"data/loss": np.float32(loss * off)}, "theirs"):
        assert result.agrees == agrees
        assert bool(result.reasons) == agrees
    if agrees:
        assert "theirs adds 120000 numbers for blob 'loss' in float32 and is off by 5.0e-04" in result.reasons[0]
