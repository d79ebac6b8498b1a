"""A user's module teaches the tools private layers: a type of a fork, or a Python layer."""

import sys

import numpy as np
import pytest

from caffe_tools import prototxt
from caffe_tools.command_line import cli
from caffe_tools.errors import NetError
from caffe_tools.net.net import Net

MODULE = '''
from caffe_tools import layer_type, python_layer_type
from caffe_tools.prototxt.fields import Float


@layer_type("HardSwish", hard_swish_param={"scale": Float(1.0)})
def hard_swish(op, layer, x):
    """scale · x · clip(x / 6 + 0.5, 0, 1)"""
    return op.Mul(op.HardSwish(x), layer.hard_swish_param.scale)


@python_layer_type("old_repository.layers", "DoublingLayer")
def doubling_layer(op, layer, x):
    return op.Mul(x, 2)
'''

NET = """
name: "private"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "swish" type: "HardSwish" bottom: "data" top: "swish" hard_swish_param { scale: 3 } }
layer { name: "double" type: "Python" bottom: "swish" top: "double"
        python_param { module: "old_repository.layers" layer: "DoublingLayer" } }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the module and the net; what the module registers is forgotten afterwards."""
    from caffe_tools.standard import PYTHON_TYPES, TYPES

    before, python_before = dict(TYPES), dict(PYTHON_TYPES)
    (tmp_path / "my_layers.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "net.prototxt").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_layers", None)
    for table, kept in ((TYPES, before), (PYTHON_TYPES, python_before)):
        table.clear()
        table.update(kept)


def test_an_allowed_module_teaches_its_types(folder):
    net = Net("net.prototxt", "TEST", allow_modules=["my_layers"])
    x = np.array([[-4, -1, 0], [1, 2, 4]], np.float32)
    net.blobs["data"].data[...] = x
    expected = 2 * 3 * x * np.clip(x / 6 + 0.5, 0, 1)
    np.testing.assert_allclose(net.forward()["double"], expected, rtol=1e-6)


def test_the_command_line_takes_such_a_module(folder, capsys):
    assert cli.main(["check", "net.prototxt", "--allow-module", "my_layers"]) == 0
    assert "All 2 blobs" in capsys.readouterr().out


def test_without_it_every_layer_that_is_not_covered_is_listed(folder):
    text = NET + 'layer { name: "other" type: "Strange" bottom: "double" top: "other" }'
    with pytest.raises(NetError) as caught:
        Net(prototxt.parse(text, "net.prototxt"), "TEST")
    message = str(caught.value)
    assert "2 layers have types that are not covered" in message
    assert "'swish' (HardSwish, net.prototxt:4:1), 'other' (Strange, net.prototxt:7:1)" in message


def test_one_layer_that_is_not_covered_is_named_with_its_place(folder):
    with pytest.raises(NetError, match=r"net.prototxt:4.*'swish' \(HardSwish\).*type 'HardSwish' is not covered"):
        Net("net.prototxt", "TEST")
