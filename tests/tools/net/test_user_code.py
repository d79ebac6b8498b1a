"""What goes wrong in a user's own layer is said with their file and line, and their late imports find their files."""

import sys

import pytest

from caffe_tools.command_line import cli
from caffe_tools.errors import NetError
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.net.net import Net
from caffe_tools.standard.registry import TAUGHT

LAYER = """
import caffe


class Habit(caffe.Layer):
    def setup(self, bottom, top):
        {setup}

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
        {reshape}

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        {forward}

    def backward(self, top, propagate_down, bottom):
        {backward}
"""
NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "py" type: "Python" bottom: "x" top: "y" python_param { module: "my_habits" layer: "Habit" } }
"""
METHODS = ("setup", "reshape", "forward", "backward")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes the module, with one line of code in a method, beside the net."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)

    def write(code="pass", method="forward", top=""):
        methods = dict.fromkeys(METHODS, "pass") | {method: code}
        (tmp_path / "my_habits.py").write_text(top + LAYER.format(**methods))
        return tmp_path

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def run():
    net = Net("net.prototxt", "TEST", allow_modules=["my_habits"])
    net.forward()
    net.backward()
    return net


def error_of():
    with pytest.raises(NetError) as raised:
        run()
    return str(raised.value)


def line_of(folder, text, file="my_habits.py"):
    lines = (folder / file).read_text().splitlines()
    return f"({file}, line {next(number for number, line in enumerate(lines, 1) if text in line)})"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "code", ["[][3]", "import numpy; numpy.zeros(3).reshape(2)", "import json; json.loads('{')", "top[0].reshape(-1)"]
)
def test_an_error_names_the_line_of_the_users_code(write, method, code):
    folder = write(code, method)
    message = error_of()
    assert message.startswith("net.prototxt:4:1: layer 'py' (Python): ")
    assert message.endswith(line_of(folder, code)) and "\n" not in message


def test_the_innermost_line_of_several_files_is_named(write):
    folder = write("import my_helper; my_helper.fails()")
    (folder / "my_helper.py").write_text("def fails():\n    return {}['key']\n")
    assert error_of().endswith("raises KeyError: 'key' (my_helper.py, line 2)")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("code", ["exit()", "import sys; sys.exit(3)", "raise SystemExit('enough')"])
def test_a_layer_that_ends_the_program_is_named(write, method, code):
    folder = write(code, method)
    message = error_of()
    assert message.startswith("net.prototxt:4:1: layer 'py' (Python): its Python code ends the program")
    assert message.endswith(line_of(folder, code))


@pytest.mark.parametrize(
    ("top", "says"),
    [
        (
            "1 / 0\n",
            "importing module 'my_habits' fails with ZeroDivisionError: division by zero (my_habits.py, line 1)",
        ),
        ("import sys\nsys.exit(1)\n", "importing module 'my_habits' ends the program: 1 (my_habits.py, line 2)"),
        ("x = = 1\n", "fails with SyntaxError: invalid syntax (my_habits.py, line 1)"),
        (
            "import my_missing\n",
            "cannot import module 'my_habits': No module named 'my_missing' (my_habits.py, line 1)",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_names_its_line(write, top, says):
    write(top=top)
    assert error_of().endswith(says)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_beside_the_module_is_found_by_late_imports(write, method, tmp_path_factory, monkeypatch):
    folder = write("import my_helper", method)
    (folder / "my_helper.py").write_text("")
    path = list(sys.path)
    net = Net("net.prototxt", "TEST", allow_modules=["my_habits"]) if method not in ("setup", "reshape") else None
    if net is not None:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        net.forward()
        net.backward()
    else:
        run()
    assert "my_helper" in sys.modules and sys.path == path


def test_the_folder_of_a_module_on_the_path_serves_its_late_imports(write, tmp_path_factory, monkeypatch):
    folder = write("import my_helper")
    package = folder / "my_package"
    package.mkdir()
    (folder / "my_habits.py").rename(package / "habits.py")
    (package / "my_helper.py").write_text("")
    (folder / "net.prototxt").write_text(NET.replace("my_habits", "my_package.habits"))
    Net("net.prototxt", "TEST", allow_modules=["my_package"]).forward()


def test_caffe_itself_may_be_imported_late(write):
    write("import caffe; self.train = caffe.TRAIN", "setup")
    run()
    assert not hasattr(sys.modules.get("caffe"), "Layer") or hasattr(sys.modules["caffe"], "Net")


def test_the_command_line_says_it_in_one_line(write, capsys):
    folder = write("exit()")
    assert cli.main(["run", "net.prototxt", "--allow-module", "my_habits"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and line_of(folder, "exit()") in printed


GRADIENT = """
    def onnx(self, op, x):
        y = op.Identity(x)
        op.define_gradient([y], [x], lambda dy: [{}["a"]])
        return y
"""


def test_the_gradient_that_a_layer_defines_in_onnx_is_its_code_too(write, tmp_path):
    folder = write()
    (folder / "my_habits.py").write_text((folder / "my_habits.py").read_text() + GRADIENT)
    net = Net("net.prototxt", "TEST", allow_modules=["my_habits"])
    with pytest.raises(NetError) as raised:
        export(net, ExportOptions(training=True, input_gradients=True))
    assert str(raised.value).endswith(f"raises KeyError: 'a' {line_of(folder, 'define_gradient')}")


TAUGHT_TYPE = """
from caffe_tools import layer_type


@layer_type("Mine")
def mine(op, layer, x):
    return [][layer.top_count]
"""


def test_the_function_of_a_type_that_a_user_taught_is_their_code_too(write, tmp_path):
    (tmp_path / "my_types.py").write_text(TAUGHT_TYPE)
    text = NET.split("layer {", 2)
    (tmp_path / "net.prototxt").write_text(
        "layer {".join(text[:2]) + 'layer { name: "own" type: "Mine" bottom: "x" top: "y" }'
    )
    try:
        with pytest.raises(NetError) as raised:
            Net("net.prototxt", "TEST", allow_modules=["my_types"])
    finally:
        TAUGHT.clear()
    assert str(raised.value) == (
        "net.prototxt:4:1: layer 'own' (Mine): the function of its type raises IndexError: list index out of range"
        " (my_types.py, line 7)"
    )
