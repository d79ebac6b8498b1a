"""What a Caffe's own Python sees of the user's files, and what is said where it gives nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe_tools
from caffe_tools.check.check import check
from caffe_tools.check.peers import run_caffe
from caffe_tools.errors import NetError
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.net import Net
from nets import drawn_net, inner_product, inputs, layer, python

CAFFE = """
import sys
from caffe_tools.net.net import TEST, TRAIN, Net as Embedded
from caffe_tools.prototxt import load
def set_mode_cpu(): pass
def Net(path, phase): return Embedded(path, phase, allow_modules=ALLOWED)
ALLOWED = {allowed!r}
"""

DOUBLING = """
import caffe_layers.layer
class Doubling(caffe_layers.layer.StandInLayer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff
    def onnx(self, op, x): return op.Mul(x, 2)
"""


@pytest.fixture
def caffe(tmp_path, monkeypatch):
    """A module ``caffe`` on PYTHONPATH, made of the embedded net; the working directory is another folder."""
    place = tmp_path / "of_caffe"
    place.mkdir()
    tools = [str(Path(caffe_tools.__file__).parent.parent), str(Path(caffe_tools.__file__).parents[2] / "layers")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), *tools]))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def write(text=None, allowed=()):
        (place / "caffe.py").write_text(text or CAFFE.format(allowed=tuple(allowed)), encoding="utf-8")

    write()
    return write


def checked(net, python=sys.executable):
    def peer(net, fed):
        return run_caffe(net, fed, python=python)

    return check(net, peer, "caffe")


PARAMETER = layer("p", "Parameter", "", "w", "parameter_param { shape { dim: 2 dim: 3 } }") + layer(
    "t", "TanH", "w", "y"
)
EXPLICIT_SPLIT = (
    inputs(x=(2, 3)) + layer("s", "Split", "x", "a b") + layer("t", "TanH", "a", "y") + layer("u", "Sigmoid", "b", "z")
)
BATCH_NORM = inputs(x=(4, 3)) + layer("bn", "BatchNorm", "x", "y")


@pytest.mark.usefixtures("caffe")
@pytest.mark.parametrize("text", [PARAMETER, EXPLICIT_SPLIT, BATCH_NORM], ids=["parameter", "split", "statistics"])
def test_such_a_net_agrees_without_a_note(text):
    for result in checked(drawn_net(text, "TEST")):
        assert result.agrees
        assert not [note for note in result.notes if "compared" in note]


def net_of_module(module, folder, name="net.prototxt"):
    (folder / name).write_text(inputs(x=(2, 3)) + python("py", "Doubling", "x", "y", module=module))
    net = Net(folder / name, "TEST", allow_modules=[module])
    draw_inputs(net, ())
    return net


@pytest.mark.parametrize("module", ["my_doubling", "judge", "report", "net", "check", "caffe_peer"])
def test_the_users_module_is_found_in_the_working_directory_whatever_its_name(module, caffe, tmp_path):
    (tmp_path / "work" / f"{module}.py").write_text(DOUBLING)
    caffe(allowed=[module])
    net = net_of_module(module, tmp_path / "work")
    sys.modules.pop(module)
    ours, _ = checked(net)
    assert ours.agrees


def test_it_is_found_beside_the_net_too(caffe, tmp_path, monkeypatch):
    folder = tmp_path / "of_the_net"
    folder.mkdir()
    (folder / "beside.py").write_text(DOUBLING)
    caffe(allowed=["beside"])
    monkeypatch.syspath_prepend(folder)
    net = net_of_module("beside", folder)
    sys.modules.pop("beside")
    ours, _ = checked(net)
    assert ours.agrees


def test_a_module_that_this_python_has_and_the_peer_has_not_is_named(caffe, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "unknown_there.py").write_text(DOUBLING)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    net = net_of_module("unknown_there", tmp_path / "work")
    sys.modules.pop("unknown_there")
    with pytest.raises(NetError, match="cannot import the net's module 'unknown_there': ModuleNotFoundError"):
        checked(net)


@pytest.mark.usefixtures("caffe")
def test_a_layer_of_ours_is_there():
    text = inputs(x=(2, 3)) + python("py", "SoftmaxLayer", "x", "y")
    assert all(result.agrees for result in checked(drawn_net(text, "TEST")))


FAILS = [
    (
        "raise SystemExit('[libprotobuf ERROR google/protobuf/text_format.cc:274] Error parsing text-format"
        ' caffe.NetParameter: 13:9: Message type "caffe.LayerParameter" has no field named "swish_param".\\nF1122'
        " upgrade_proto.cpp:90] Check failed: ReadProtoFromTextFile(param_file, param)')",
        "refuses the net: it knows no field 'swish_param' of a LayerParameter",
    ),
    (
        "raise SystemExit('F1122 layer_factory.hpp:81] Check failed: registry.count(type) == 1 (0 vs. 1) Unknown layer"
        " type: Swish (known types: AbsVal)')",
        "refuses the net: it has no layer type 'Swish'",
    ),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashes when importing Caffe \(SIGSEGV\)"),
    ("raise ImportError('libboost_python3.so: cannot open')", "import caffe fails with ImportError: libboost_python3"),
    ("import google.of_another_age", "import caffe fails with ModuleNotFoundError: No module named 'google"),
    ("", r"the module 'caffe' that it imports .* is not Caffe"),
]


@pytest.mark.parametrize("text, message", FAILS)
def test_what_hinders_a_caffe_is_one_line(text, message, caffe):
    caffe(text or "pass")
    with pytest.raises(NetError, match=message) as raised:
        checked(drawn_net(EXPLICIT_SPLIT, "TEST"))
    assert "\n" not in str(raised.value) and sys.executable in str(raised.value)


@pytest.mark.parametrize("executable", ["true", "false", "ls"])
def test_an_executable_that_is_no_python_is_named(executable, tmp_path):
    path = next(
        (f"{folder}/{executable}" for folder in ("/bin", "/usr/bin") if os.path.exists(f"{folder}/{executable}")), ""
    )
    if not path:
        pytest.skip(f"needs {executable}")
    with pytest.raises(NetError, match="has no Caffe, or is no Python.*: name one that has with --caffe-python EXE"):
        checked(drawn_net(EXPLICIT_SPLIT, "TEST"), python=path)


def test_statistics_that_change_come_back(caffe):
    text = inputs(x=(4, 3)) + layer("bn", "BatchNorm", "x", "y") + inner_product("ip", "y", "z") + inputs(target=(4, 3))
    net = drawn_net(text + layer("loss", "EuclideanLoss", "z target", "loss"))
    ours, _ = checked(net)
    assert ours.agrees and {f"param_after/bn/{i}" for i in range(3)} <= {row.key for row in ours.rows}
    assert np.isfinite([row.largest for row in ours.rows]).all()
