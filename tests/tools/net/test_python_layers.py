"""Python layers in the embedded net: which modules are imported, and how their layers are called."""

from __future__ import annotations

import itertools
import sys
import textwrap
import types

import numpy as np
import pytest

from caffe_layers.contract import StandInLayer
from caffe_tools.errors import NetError
from nets import inputs, layer, net_of

NAMES = (f"user_layers_{number}" for number in itertools.count())
DOUBLE = """
    import caffe

    class Double(caffe.Layer):
        def setup(self, bottom, top):
            self.calls = ["setup"]

        def reshape(self, bottom, top):
            self.calls.append("reshape")
            top[0].reshape(*bottom[0].shape)

        def forward(self, bottom, top):
            self.calls.append("forward")
            top[0].data[...] = 2 * bottom[0].data

        def backward(self, top, propagate_down, bottom):
            self.calls.append(("backward", list(propagate_down)))
            if propagate_down[0]:
                bottom[0].diff[...] = 2 * top[0].diff
"""
LEARNED = """
    import caffe

    class Learned(caffe.Layer):
        \"\"\"w x, with a learnable number w.\"\"\"

        def setup(self, bottom, top):
            self.blobs.add_blob(1)
            self.blobs[0].data[...] = 3

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].shape)

        def forward(self, bottom, top):
            top[0].data[...] = self.blobs[0].data * bottom[0].data

        def backward(self, top, propagate_down, bottom):
            self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
            if propagate_down[0]:
                bottom[0].diff[...] = self.blobs[0].data * top[0].diff
"""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """A function that writes a module of that text on the path, and gives its name."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(text):
        written.append(next(NAMES))
        (tmp_path / f"{written[-1]}.py").write_text(textwrap.dedent(text))
        return written[-1]

    yield write
    for name in written:
        sys.modules.pop(name, None)


def python(module, class_, bottom="x", top="y", rest="", param_str=""):
    param = f'python_param {{ module: "{module}" layer: "{class_}" param_str: "{param_str}" }}'
    return layer("mine", "Python", bottom, top, f"{param} {rest}")


def net_with(module, class_, rest="", allow=True, **keywords):
    text = "force_backward: true " + inputs(x=(2, 3)) + python(module, class_, rest=rest, **keywords)
    return net_of(text, allow_modules=[module] if allow else ())


def error_of(action):
    with pytest.raises(NetError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- which modules are imported


def test_the_plug_in_layers_need_no_leave():
    net = net_of(inputs(x=(2, 3)) + python("caffe_layers", "SigmoidLayer"))
    assert (net.forward()["y"] == 0.5).all()


def test_a_module_of_the_plug_in_package_needs_none_either():
    net_of(inputs(x=(2, 3)) + python("caffe_layers.sigmoid", "SigmoidLayer"))


def test_another_module_is_not_imported_without_leave(write_module):
    module = write_module("raise SystemError('this must not run')")
    message = error_of(lambda: net_with(module, "Double", allow=False))
    assert f"module {module!r} is not imported without leave, since a net may come from a stranger" in message
    assert f"allow it with --allow-module {module} (in Python: allow_modules=[{module!r}])" in message
    assert message.startswith("net.prototxt:2:1: layer 'mine' (Python): ")
    assert module not in sys.modules


def test_a_module_whose_name_only_begins_like_an_allowed_one_is_not_imported(write_module):
    module = write_module(DOUBLE)
    text = inputs(x=(2, 3)) + python(f"{module}_evil", "Double")
    assert "without leave" in error_of(lambda: net_of(text, allow_modules=[module]))
    assert "without leave" in error_of(lambda: net_of(inputs(x=(2,)) + python("caffe_layers_evil", "Double")))


def test_an_allowed_module_that_begins_with_import_caffe_runs_without_a_caffe(write_module):
    net = net_with(write_module(DOUBLE), "Double")
    assert (net.forward(x=np.full((2, 3), 1.5))["y"] == 3).all()


def test_the_stand_in_for_caffe_does_not_stay_behind(write_module):
    before = sys.modules.get("caffe")
    net_with(write_module(DOUBLE), "Double")
    assert sys.modules.get("caffe") is before


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    module = next(NAMES)
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(DOUBLE))
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    net_with(module, "Double")
    assert sys.path == path
    del sys.modules[module]


def test_a_module_that_is_not_there_is_an_error():
    message = error_of(lambda: net_with("no_such_module_at_all", "Double"))
    assert "cannot import module 'no_such_module_at_all'" in message and "PYTHONPATH" in message


def test_a_module_that_fails_to_import_is_an_error_of_one_line(write_module):
    module = write_module("raise RuntimeError('two\\nlines')")
    assert f"importing module {module!r} fails with RuntimeError: two lines" in error_of(lambda: net_with(module, "D"))


@pytest.mark.parametrize("class_", ["Triple", "caffe"])
def test_a_class_that_the_module_has_not_is_an_error(write_module, class_):
    module = write_module(DOUBLE)
    assert f"module {module!r} has no class {class_!r}" in error_of(lambda: net_with(module, class_))


@pytest.mark.parametrize("given", ["", "python_param { layer: 'L' }", "python_param { module: 'caffe_layers' }"])
def test_a_python_layer_names_a_module_and_a_class(given):
    message = error_of(lambda: net_of(inputs(x=(2,)) + layer("mine", "Python", "x", "y", given)))
    assert "layer 'mine' (Python): python_param must name a module and a layer" in message


def test_a_field_that_python_param_has_not_is_an_error():
    text = inputs(x=(2,)) + layer("mine", "Python", "x", "y", "python_param { modul: 'caffe_layers' }")
    assert "python_param has no field 'modul': did you mean 'module'?" in error_of(lambda: net_of(text))


# --- how its layers are called


def calls(net):
    return net.layer_dict["mine"].instance.calls


def test_a_layer_is_set_up_once_and_reshaped_before_every_forward(write_module):
    net = net_with(write_module(DOUBLE), "Double")
    net.forward()
    net.forward()
    assert calls(net) == ["setup", "reshape", "reshape", "forward", "reshape", "forward"]


def test_a_layer_is_reshaped_for_another_batch_size(write_module):
    net = net_with(write_module(DOUBLE), "Double")
    net.blobs["x"].reshape(7, 3)
    net.reshape()
    assert net.blobs["y"].shape == (7, 3)


def test_backward_hands_over_the_tops_diffs_and_takes_the_bottoms(write_module):
    net = net_with(write_module(DOUBLE), "Double", "loss_weight: 5")
    net.forward()
    assert (net.backward()["x"] == 10).all()
    assert calls(net)[-1] == ("backward", [True])


def test_propagate_down_tells_the_layer_what_is_not_asked_for(write_module):
    module = write_module(DOUBLE)
    text = inputs(x=(2, 3), z=(2, 3)) + layer("scale", "Scale", "x", "s")
    text += python(module, "Double", "s z", rest="propagate_down: [true, false] loss_weight: 1")
    net = net_of(text, allow_modules=[module])
    net.forward()
    net.backward()
    assert calls(net)[-1] == ("backward", [True, False])


def test_a_layer_knows_its_param_str_and_its_phase(write_module):
    module = write_module(DOUBLE)
    text = inputs(x=(2, 3)) + python(module, "Double", param_str="'a': 1")
    for number, phase in enumerate(("TRAIN", "TEST")):
        instance = net_of(text, phase, allow_modules=[module]).layer_dict["mine"].instance
        assert (instance.param_str, instance.phase) == ("'a': 1", number)


def test_a_loss_layer_in_python_has_no_loss_weight_of_its_own():
    text = inputs(x=(2, 3), t=(2,)) + python("caffe_layers", "SoftmaxLossLayer", "x t")
    net = net_of(text)
    assert net.forward()["y"] > 1 and net.total_loss == 0


def test_a_python_layer_may_work_in_place():
    text = "force_backward: true " + inputs(x=(2,)) + python("caffe_layers", "SigmoidLayer", top="x")
    net = net_of(text)
    x = net.forward(x=np.array([0, np.log(3)]))["x"]
    np.testing.assert_allclose(x, [0.5, 0.75])
    np.testing.assert_allclose(net.backward(x=np.ones(2))["x"], [0.25, 0.1875], rtol=1e-6)


def test_the_learnable_blobs_of_a_python_layer_are_the_nets(write_module):
    net = net_with(write_module(LEARNED), "Learned", "loss_weight: 1")
    assert (net.forward(x=np.full((2, 3), 2))["y"] == 6).all()
    net.backward()
    (blob,) = net.params["mine"]
    assert blob.data == 3 and blob.diff == 12
    net.backward()
    assert blob.diff == 24
    net.clear_param_diffs()
    assert blob.diff == 0


def test_the_learnable_blobs_of_a_python_layer_are_saved_and_loaded(write_module, tmp_path):
    module = write_module(LEARNED)
    net = net_with(module, "Learned")
    net.params["mine"][0].data[...] = 8
    net.save(tmp_path / "w.caffemodel")
    other = net_with(module, "Learned")
    other.copy_from(tmp_path / "w.caffemodel")
    assert (other.forward(x=np.ones((2, 3)))["y"] == 8).all()


@pytest.mark.parametrize("method", ["setup", "reshape", "forward", "backward"])
def test_what_a_layer_raises_is_an_error_of_one_line_that_names_the_layer(write_module, method, tmp_path):
    broken = f"def {method}(*arguments): 1 / 0\n        def not_{method}(self"
    module = write_module(DOUBLE.replace(f"def {method}(self", broken))

    def run():
        net = net_with(module, "Double")
        net.forward()
        net.backward()

    message = error_of(run)
    lines = (tmp_path / f"{module}.py").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "1 / 0" in text)
    assert message.startswith(
        "net.prototxt:2:1: layer 'mine' (Python): its Python code raises ZeroDivisionError: division by zero ("
    )
    assert message.endswith(f"{module}.py, line {line})")


def test_what_a_plug_in_layer_finds_wrong_is_said_in_its_own_words():
    text = inputs(x=(2, 3)) + python("caffe_layers", "SoftmaxLayer", param_str="'axes': 1")
    message = error_of(lambda: net_of(text))
    assert message.startswith("net.prototxt:2:1: layer 'mine' (Python): SoftmaxLayer: ") and "axes" in message


def test_a_forced_backward_asks_a_layer_only_for_what_it_allows():
    text = "force_backward: true " + inputs(x=(2, 3), t=(2,))
    net = net_of(text + python("caffe_layers", "SoftmaxLossLayer", "x t", rest="loss_weight: 1"))
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.any() and not net.blobs["t"].diff.any()


def test_asking_a_loss_for_a_gradient_toward_its_labels_is_an_error():
    rest = "loss_weight: 1 propagate_down: [true, true]"
    loss = python("caffe_layers", "SoftmaxLossLayer", "s t", rest=rest)
    net = net_of(inputs(x=(2, 3), t=(2,)) + layer("scale", "Scale", "x", "s") + loss)
    net.forward()
    assert "bottom[1] (labels) has no gradient" in error_of(net.backward)


def test_an_unrelated_package_called_caffe_does_not_hide_the_stand_in(write_module, monkeypatch):
    unrelated = types.ModuleType("caffe")
    monkeypatch.setitem(sys.modules, "caffe", unrelated)
    monkeypatch.setattr("caffe_layers.layer.Layer", StandInLayer)  # as where no real Caffe is
    net = net_with(write_module(DOUBLE), "Double")
    assert (net.forward(x=np.full((2, 3), 1.5))["y"] == 3).all()
    assert sys.modules["caffe"] is unrelated
