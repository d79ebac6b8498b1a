"""No command writes over one of its inputs, whatever name it is given; the file stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.command_line.cli import main
from nets import euclidean_loss, inner_product, inputs, layer

NET = inputs(data=(1, 4)) + inner_product("ip", "data", "y")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net.prototxt").write_text(NET)
    blobs = [np.zeros((3, 4), np.float32), np.zeros(3, np.float32)]
    caffemodel.write("w.caffemodel", [("ip", "InnerProduct", blobs)])
    np.savez("in.npz", **{"in/data": np.ones((1, 4), np.float32)})
    np.savez("right.npz", **{"data/y": np.zeros((1, 3), np.float32)})
    Path("own.py").write_text("")
    os.symlink("net.prototxt", "link")
    os.link("w.caffemodel", "hard")
    return tmp_path


NAMED = ["net.prototxt", "--weights", "w.caffemodel", "--inputs", "in.npz"]
CASES = {
    "export over the net": ["export", *NAMED, "-o", "net.prototxt"],
    "export over the weights": ["export", *NAMED, "-o", "./w.caffemodel"],
    "export through a symlink": ["export", *NAMED, "-o", "link"],
    "export through a hard link": ["export", *NAMED, "-o", "hard"],
    "save over the inputs": ["run", *NAMED, "--save", "in.npz"],
    "json over the net": ["check", *NAMED, "--json", "net.prototxt"],
    "report over the weights": ["check", *NAMED, "--report", "w.caffemodel"],
    "json over what is compared with": ["check", *NAMED, "--against", "right.npz", "--json", "right.npz"],
    "json over a module": ["check", *NAMED, "--allow-module", "own", "--json", "own.py"],
    "upgrade in place": ["upgrade", "net.prototxt", "-o", "net.prototxt"],
    "gradcheck over its module": ["gradcheck", "own:Layer", "--bottom", "2x3", "--json", "own.py"],
    "crosscheck over its graph": [
        *["crosscheck", "net.prototxt", "--layer", "SoftmaxLossLayer", "--bottom", "x", "--loss", "l"],
        *["--json", "net.prototxt"],
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_an_input_is_not_written_over(case, here, capsys):
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert main(CASES[case]) == 2
    err = capsys.readouterr().err
    assert "cannot write" in err and "of this command" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_files_that_the_net_names_are_inputs_too(here, capsys):
    Path("mean.npz").write_bytes(b"mean")
    data = 'data_param { batch_size: 1 source: "db" } transform_param { crop_size: 2 mean_file: "mean.npz" }'
    Path("net.prototxt").write_text(layer("d", "Data", "", "x", data) + layer("a", "ReLU", "x", "y"))
    assert main(["run", "net.prototxt", "--save", "mean.npz"]) == 2
    assert Path("mean.npz").read_bytes() == b"mean"


def test_files_that_a_python_layer_names_are_inputs_too(here, capsys):
    param = 'module: "caffe_layers" layer: "NpzDataLayer" param_str: "source: data.npz"'
    Path("net.prototxt").write_text(layer("d", "Python", "", "x", f"python_param {{ {param} }}"))
    Path("data.npz").write_bytes(b"data")
    assert main(["run", "net.prototxt", "--save", "data.npz"]) == 2
    assert Path("data.npz").read_bytes() == b"data"


def test_one_file_is_not_two_outputs(here, capsys):
    assert main(["check", *NAMED, "--json", "a", "--report", "./a"]) == 2
    assert not Path("a").exists()


@pytest.mark.parametrize("name", ["o.npz", "data"])
def test_other_files_are_written_over(name, here):
    Path(name).write_text("old")  # a blob's name is no file's
    assert main(["run", *NAMED, "--save", name]) == 0
    assert "data/y" in np.load(name)


def test_a_snapshot_does_not_take_the_place_of_the_weights_it_starts_from(here, capsys):
    filled = "".join(
        layer(name, "DummyData", "", name, f"dummy_data_param {{ shape {{ dim: 2 dim: {size} }} }}")
        for name, size in (("data", 4), ("target", 3))
    )
    Path("train.prototxt").write_text(filled + inner_product("ip", "data", "x") + euclidean_loss("x"))
    solver = 'net: "train.prototxt" base_lr: 0.1 lr_policy: "fixed" snapshot: 2 max_iter: 4 snapshot_prefix: "run"'
    Path("solver.prototxt").write_text(solver)
    weights = Path("w.caffemodel").read_bytes()
    for number, code in ((2, 2), (4, 2), (3, 0), (100, 0)):
        start = Path(f"run_iter_{number}.caffemodel")
        start.write_bytes(weights)
        assert main(["train", "solver.prototxt", "--weights", str(start)]) == code
        assert start.read_bytes() == weights
        for path in here.glob("run_iter_*"):
            path.unlink()
    assert main(["train", "solver.prototxt"]) == 0
    assert main(["train", "solver.prototxt", "--snapshot", "run_iter_2.solverstate"]) == 0  # its own snapshots
