"""Whoever gives weights is told which layers took them: in one line where all fit, by name where some do not; a file
that fits nothing is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.command_line.cli import main
from caffe_tools.net.net import Net
from nets import convolution, euclidean_loss, inner_product, inputs, layer

CONV = (np.zeros((3, 3, 3, 3), np.float32), np.ones(3, np.float32))
NET = inputs(data=(1, 3, 4, 4)) + convolution("conv_new", "data", "conv")
TWO = NET + convolution("b", "data", "b")
SHARED = inputs(data=(2, 3)) + "".join(
    inner_product(name, "data", name, 'param { name: "w" } param { name: "b" }') for name in ("one", "two")
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


def stored(name: str, *layers: str, blobs=CONV) -> str:
    caffemodel.write(name, [(each, "Convolution", blobs) for each in layers])
    return name


def said(capsys, *arguments) -> tuple[int, str]:
    code = main(list(map(str, arguments)))
    return code, capsys.readouterr().err


COMMANDS = {
    "run": ["run", "net.prototxt"],
    "check": ["check", "net.prototxt"],
    "export": ["export", "net.prototxt", "-o", "o.onnx"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_fit_no_layer_are_an_error_that_names_both_sides(command, here, capsys):
    code, err = said(capsys, *COMMANDS[command], "--weights", stored("w.caffemodel", "conv"))
    assert code == 2 and err.count("\n") == 1
    assert "layer 'conv_new' keeps what its filler drew" in err and "takes layer 'conv' of the file" in err
    assert not Path("o.onnx").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_all_fit_are_one_short_line(command, here, capsys):
    code, err = said(capsys, *COMMANDS[command], "--weights", stored("w.caffemodel", "conv_new"))
    assert (code, err) == (0, "caffe-layers: note: the learnable layer got its weights from w.caffemodel\n")


def test_layers_that_are_left_out_are_named(here, capsys):
    Path("net.prototxt").write_text(TWO)
    code, err = said(capsys, "run", "net.prototxt", "--weights", stored("w.caffemodel", "conv_new", "fc8"))
    assert code == 0 and err.count("\n") == 1
    assert "1 of 2 learnable layers got weights from w.caffemodel; layer 'b' keeps what its filler drew" in err
    assert "nothing in the net takes layer 'fc8' of the file" in err


@pytest.mark.parametrize("given", [["--weights", "a", "--weights", "b"], ["--weights", "a,b"]])
def test_several_files_are_accounted_for_together(given, here, capsys):
    Path("net.prototxt").write_text(TWO)
    stored("a", "conv_new"), stored("b", "b")
    assert said(capsys, "run", "net.prototxt", *given) == (
        0,
        "caffe-layers: note: all 2 learnable layers got weights from a, b\n",
    )


def test_layers_that_share_their_blobs_count_as_given(here):
    blobs = (np.zeros((3, 3), np.float32), np.ones(3, np.float32))
    Path("net.prototxt").write_text(SHARED)
    loaded = Net("net.prototxt").copy_from(stored("w", "one", blobs=blobs))
    assert (loaded.taken, loaded.at_fillers, loaded.ignored, loaded.learnable) == (("one",), (), (), 2)


def test_arrays_of_the_inputs_count_as_weights(here, capsys):
    Path("net.prototxt").write_text(TWO)
    np.savez("in.npz", **{"param/b/0": CONV[0], "param/b/1": CONV[1]})
    weights = ["--weights", stored("w.caffemodel", "conv_new")]
    assert "all 2 learnable layers" in said(capsys, "run", "net.prototxt", "--inputs", "in.npz", *weights)[1]
    err = said(capsys, *COMMANDS["export"], "--inputs", "in.npz")[1]
    assert "the weights of 'conv_new' are what the fillers drew" in err
    np.savez("in.npz", **{f"param/{name}/{i}": CONV[i] for name in ("conv_new", "b") for i in (0, 1)})
    assert said(capsys, *COMMANDS["export"], "--inputs", "in.npz") == (0, "")


def test_a_net_goes_on_with_a_warning_and_gives_the_facts(here):
    with pytest.warns(UserWarning, match="'conv_new' keeps .* drew"):
        net = Net("net.prototxt", weights=stored("w.caffemodel", "conv"))
    assert net.loaded is not None and net.loaded.ignored == ("conv",) and net.at_fillers == ("conv_new",)
    with pytest.warns(UserWarning, match="takes layer 'conv' of the file"):
        loaded = net.copy_from("w.caffemodel")
    assert (loaded.taken, loaded.at_fillers, loaded.ignored) == ((), ("conv_new",), ("conv",))
    assert net.copy_from(stored("fits", "conv_new")).is_complete and net.at_fillers == ()


def test_a_net_without_learnable_layers_is_no_error(here, capsys):
    Path("net.prototxt").write_text(inputs(data=(2, 3)) + layer("act", "ReLU", "data", "y"))
    code, err = said(capsys, "run", "net.prototxt", "--weights", stored("w.caffemodel", "conv"))
    assert code == 0 and "the net has no learnable layer" in err and "'conv'" in err


def test_training_names_what_it_starts_from(here, capsys):
    filled = "".join(
        layer(name, "DummyData", "", name, f"dummy_data_param {{ shape {{ dim: 2 dim: {size} }} }}")
        for name, size in (("data", 4), ("target", 3))
    )
    Path("net.prototxt").write_text(filled + inner_product("ip", "data", "x") + euclidean_loss("x"))
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')
    code, err = said(capsys, "train", "solver.prototxt", "--weights", stored("w", "conv"))
    assert code == 2 and "'ip' keeps what its filler drew" in err and "'conv'" in err
    blobs = (np.zeros((3, 4), np.float32), np.zeros(3, np.float32))
    stored("w", "ip", blobs=blobs)
    assert said(capsys, "train", "solver.prototxt", "--weights", "w") == (
        0,
        "caffe-layers: note: the learnable layer got its weights from w\n",
    )
    with open("solver.prototxt", "a") as file:
        file.write(f' weights: "{stored("other", "conv")}"')
    assert said(capsys, "train", "solver.prototxt")[0] == 2


# What an export says of itself ----------------------------------------------------------------------------------------


def test_an_export_without_weights_says_so(here, capsys):
    assert "no --weights are given" in said(capsys, *COMMANDS["export"])[1]
    assert said(capsys, *COMMANDS["export"], "--training", "--phase", "TRAIN") == (0, "")


def test_a_batch_that_stays_fixed_is_said(here, capsys):
    Path("net.prototxt").write_text(inputs(data=(10, 3)) + layer("act", "ReLU", "data", "y"))
    code, err = said(capsys, *COMMANDS["export"])
    assert (code, err) == (0, "caffe-layers: note: the batch size is fixed at 10; --dynamic-batch leaves it open\n")
    assert said(capsys, *COMMANDS["export"], "--dynamic-batch") == (0, "")
