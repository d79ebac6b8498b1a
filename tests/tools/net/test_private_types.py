"""A user's module teaches the tools private layers: a type of a fork, or a Python layer."""

import sys

import numpy as np
import pytest

from caffe_tools import layer_type, prototxt, python_layer_type, standard
from caffe_tools.command_line import cli
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.net.net import Net
from caffe_tools.standard.registry import TAUGHT

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
    (tmp_path / "my_layers.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "net.prototxt").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_layers", None)
    TAUGHT.clear()


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
    first, *faults = message.splitlines()
    assert first == "3 things are wrong:"
    for fault, begins in zip(
        faults,
        (
            "net.prototxt:4:1: layer 'swish' (HardSwish): layer type 'HardSwish' is not covered: ",
            "net.prototxt:7:1: layer 'other' (Strange): layer type 'Strange' is not covered: ",
            "net.prototxt:5:1: layer 'double' (Python): old_repository.layers.DoublingLayer: module",
        ),
        strict=True,
    ):
        assert fault.startswith(begins)


def test_one_layer_that_is_not_covered_is_named_with_its_place(folder):
    with pytest.raises(NetError, match=r"net.prototxt:4.*'swish' \(HardSwish\).*type 'HardSwish' is not covered"):
        Net("net.prototxt", "TEST")


# A name that is taken -------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetting():
    yield
    TAUGHT.clear()


def twice_as_much(op, layer, x):
    return op.Mul(x, 2)


def three_times_as_much(op, layer, x):
    return op.Mul(x, 3)


REGISTRATIONS = [
    (lambda **how: layer_type("ReLU", **how), "ReLU"),
    (lambda **how: python_layer_type("rpn.proposal_layer", "ProposalLayer", **how), "rpn.proposal_layer.ProposalLayer"),
    (lambda **how: layer_type("Times", **how), "Times"),
]


@pytest.mark.parametrize(("register", "name"), REGISTRATIONS)
def test_a_name_that_another_function_has_is_an_error_that_names_both(register, name, forgetting):
    if name == "Times":
        register()(twice_as_much)
    with pytest.raises(CaffeToolsError) as raised:
        register()(three_times_as_much)
    assert f"layer type '{name}' is registered already, by " in str(raised.value)
    assert str(raised.value).endswith(
        f": give override=True to replace it by {three_times_as_much.__module__}.three_times_as_much"
    )


def test_override_replaces_a_built_in_type_and_leaves_its_table_as_it_is(forgetting):
    built_in = standard.TYPES["ReLU"]
    layer_type("ReLU", override=True)(three_times_as_much)
    text = NET.split('layer { name: "swish')[0] + 'layer { name: "r" type: "ReLU" bottom: "data" top: "y" }'
    net = Net(prototxt.parse(text), "TEST")
    assert (net.forward(data=np.full((2, 3), -1.0))["y"] == -3).all()
    assert standard.TYPES["ReLU"] is built_in


def test_a_module_that_is_run_again_replaces_what_it_taught(forgetting):
    for _ in range(2):
        layer_type("Times")(twice_as_much)
    assert TAUGHT["Times"].function is twice_as_much
