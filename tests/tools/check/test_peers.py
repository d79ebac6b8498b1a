"""The same net in a real Caffe (a stand-in here) and in OpenCV."""

import sys
from pathlib import Path

import numpy as np
import pytest

import caffe_tools
from caffe_tools import prototxt
from caffe_tools.check.check import run_layers
from caffe_tools.check.flat_net import flat_net
from caffe_tools.check.opencv_peer import run_opencv
from caffe_tools.check.peers import run_caffe
from caffe_tools.errors import NetError
from caffe_tools.net.net import Net

TRAINED = """
name: "trained"
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { type: "gaussian" }
                           data_filler { value: 1 } } include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }
"""

CAFFE = """
import sys
sys.path[:0] = {folders!r}
from caffe_tools.net.net import TEST, TRAIN, Net
def set_mode_cpu(): pass
"""


def parameters_of(net):
    return {f"param/{n}/{i}": blob.data.copy() for n, blobs in net.params.items() for i, blob in enumerate(blobs)}


@pytest.fixture
def caffe(tmp_path, monkeypatch):
    """A module ``caffe`` ahead of any other, made of the embedded net."""
    folders = [str(Path(caffe_tools.__file__).parent.parent), *sys.path]
    (tmp_path / "caffe.py").write_text(CAFFE.format(folders=folders), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "caffe.py"


def test_a_flat_net_has_one_phase_and_inputs_for_data():
    text = prototxt.to_text(flat_net(Net(prototxt.parse(TRAINED), "TRAIN")))
    flat = Net(prototxt.parse(text), "TRAIN")
    assert flat.inputs == ["data", "label"]
    assert "include" not in text and "DummyData" not in text
    assert flat.blobs["data"].shape == (4, 3)


def test_caffe_gets_the_same_inputs_and_weights_and_returns_blobs_and_gradients(caffe):
    net = Net(prototxt.parse(TRAINED), "TRAIN", seed=5)
    parameters = parameters_of(net)
    ours, fed = run_layers(net, training=True)
    theirs = run_caffe(net, fed | parameters)
    assert {"diff/ip", "pdiff/ip/0", "pdiff/ip/1"} <= set(ours.arrays)
    for key, array in ours.arrays.items():
        np.testing.assert_array_equal(theirs[key], array, err_msg=key)


WITHOUT_CAFFE = """#!/bin/sh
exec {python} -c "import runpy, sys; sys.modules['caffe'] = None; sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')" "$@"
"""


def test_an_interpreter_without_caffe_is_said_to_have_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python = tmp_path / "python"
    python.write_text(WITHOUT_CAFFE.format(python=sys.executable))
    python.chmod(0o755)
    net = Net(prototxt.parse(TRAINED), "TRAIN")
    with pytest.raises(NetError, match="has no Caffe: name one that has with --caffe-python"):
        run_caffe(net, run_layers(net, True)[1] | parameters_of(net), python=str(python))


def test_another_package_called_caffe_is_no_caffe(tmp_path, monkeypatch):
    (tmp_path / "caffe.py").write_text("", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    net = Net(prototxt.parse(TRAINED), "TRAIN")
    with pytest.raises(NetError, match="is not Caffe"):
        run_caffe(net, run_layers(net, True)[1] | parameters_of(net))


def test_why_caffe_ended_is_said(caffe):
    caffe.write_text("import sys; sys.exit('F1122 net.cpp:757] Check failed: no such blob\\n*** trace ***')")
    net = Net(prototxt.parse(TRAINED), "TRAIN")
    with pytest.raises(NetError, match="Check failed: no such blob"):
        run_caffe(net, run_layers(net, True)[1] | parameters_of(net))


def test_an_interpreter_that_is_not_there_is_named():
    net = Net(prototxt.parse(TRAINED), "TRAIN")
    with pytest.raises(NetError, match="cannot run no/such/python"):
        run_caffe(net, run_layers(net, True)[1] | parameters_of(net), python="no/such/python")


def test_dropout_in_training_cannot_be_compared():
    text = TRAINED + 'layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" }'
    net = Net(prototxt.parse(text), "TRAIN")
    with pytest.raises(NetError, match="'drop' .Dropout. draws other numbers"):
        run_caffe(net, {})


def test_opencv_agrees_on_a_real_net(shared):
    pytest.importorskip("cv2", reason="needs the optional OpenCV")
    net = Net(shared / "models" / "mnist_lenet.prototxt", "TEST", weights=shared / "models" / "mnist_lenet.caffemodel")
    net.blobs["data"].data[...] = np.random.default_rng(0).random((1, 1, 28, 28))
    parameters = parameters_of(net)
    ours, fed = run_layers(net, training=False)
    theirs = run_opencv(net, fed | parameters)
    assert set(theirs) == set(ours.arrays)
    for key, array in ours.arrays.items():
        np.testing.assert_allclose(theirs[key].reshape(array.shape), array, atol=1e-5 * np.abs(array).max(), rtol=0)


def test_opencv_knows_no_training():
    with pytest.raises(NetError, match="give --phase TEST"):
        run_opencv(Net(prototxt.parse(TRAINED), "TRAIN"), {})
