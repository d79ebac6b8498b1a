"""Python layers run where a real Caffe (a stand-in like it) is importable beside the tools, whose Layer is C++."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import real_caffe_stand_in
from nets import inner_product, inputs, layer, python

LAYERS = '''
import caffe

class Doubling(caffe.Layer):
    """Two, learnable."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = float(self.param_str)
        assert self.type == "Python" and self.phase == caffe.TRAIN and len(self.blobs) == 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff

class WithInit(Doubling):
    def __init__(self, param):
        super().__init__(param)
        self.made = True

    def forward(self, bottom, top):
        assert self.made
        super().forward(bottom, top)
'''


@pytest.fixture
def command(tmp_path):
    """Runs the command line in a folder with layers.py and a real Caffe."""
    real_caffe_stand_in.write(tmp_path)
    (tmp_path / "my_layers.py").write_text(LAYERS)

    def run(*arguments):
        path = os.pathsep.join([str(tmp_path), *sys.path])
        return subprocess.run(
            [sys.executable, "-m", "caffe_tools", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def net_with(middle):
    text = inputs(x=(4, 3), label=(4,)) + inner_product("ip", "x", "score") + middle
    return text + python("loss", "SoftmaxLossLayer", "y label", "loss")


@pytest.mark.parametrize("name", ["Doubling", "WithInit"])
def test_a_layer_of_the_users_and_one_of_ours_run(name, command, tmp_path):
    (tmp_path / "net.prototxt").write_text(net_with(python("py", name, "score", "y", 'param_str: "2"', "my_layers")))
    done = command("run", "net.prototxt", "--phase", "TRAIN", "--backward", "--allow-module", "my_layers")
    assert (done.returncode, done.stderr) == (0, "")
    assert "py/0.diff" in done.stdout


def test_gradcheck_takes_such_a_layer(command):
    done = command(
        "gradcheck", "my_layers:Doubling", "--bottom", "2x3", "--param-str", "2", "--allow-module", "my_layers"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["upgrade", "net.prototxt"], ["layers"], ["run", "net.prototxt"]])
def test_what_numpy_says_of_such_a_caffe_does_not_flood_a_command(arguments, command, tmp_path):
    (tmp_path / "net.prototxt").write_text(inputs(x=(4, 3)) + layer("relu", "ReLU", "x", "y"))
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_net_without_python_layers_imports_no_caffe(command, tmp_path):
    (tmp_path / "net.prototxt").write_text(inputs(x=(4, 3)) + layer("relu", "ReLU", "x", "y"))
    (tmp_path / "caffe.py").write_text("import os; os._exit(7)")  # as a Caffe for another numpy may end
    assert command("run", "net.prototxt").returncode == 0
    assert command("check", "net.prototxt").returncode == 0
