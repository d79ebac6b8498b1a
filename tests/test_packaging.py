"""What installing brings, and what each package may import."""

import configparser
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"caffe_layers": ROOT / "layers" / "caffe_layers", "caffe_tools": ROOT / "tools" / "caffe_tools"}

# What a plain "pip install caffe-layers" does not bring.
BLOCKED = ("onnx", "onnx_ir", "onnxruntime", "rich", "caffe_tools")


def setup_cfg():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def python(code, blocked=()):
    """Run ``code`` in a Python of its own in which the modules ``blocked`` cannot be found."""
    start = (
        "import sys\n"
        f"sys.path[:0] = {[str(folder.parent) for folder in PACKAGES.values()]!r}\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"  # None there is "no such module" to import
    )
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)


def test_the_layers_need_numpy_alone():
    config = setup_cfg()
    assert [line.partition(">")[0] for line in lines(config["options"]["install_requires"])] == ["numpy"]


def test_what_is_installed_is_what_setup_cfg_says():
    try:
        installed = requires("caffe-layers")
    except PackageNotFoundError:
        pytest.skip("caffe-layers is not installed here")
    plain = [requirement for requirement in installed if "extra ==" not in requirement]
    assert plain == lines(setup_cfg()["options"]["install_requires"])


def test_the_layers_import_where_onnx_and_the_tools_are_missing():
    result = python("import caffe_layers; print(caffe_layers.SoftmaxLossLayer.__name__)", BLOCKED)
    assert (result.returncode, result.stdout) == (0, "SoftmaxLossLayer\n"), result.stderr


def test_the_layers_import_nothing_but_numpy_and_the_standard_library():
    code = (
        "import numpy, sys\n"
        "before = set(sys.modules)\n"
        "import caffe_layers, caffe_layers.functional\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'numpy', 'caffe_layers'}))\n"
    )
    result = python(code, blocked=("caffe",))
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


@pytest.mark.parametrize("missing", [("onnx",), ("rich", "onnxruntime")])
def test_the_command_says_what_to_install_where_the_tools_are_missing(missing):
    result = python("from caffe_tools.entry import main; sys.exit(main())", missing)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert all(name in result.stderr for name in missing)
    assert "pip install 'caffe-layers[tools]'" in result.stderr


def test_an_interruption_ends_in_one_line_while_the_command_is_still_importing():
    result = python(
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'caffe_tools.command_line.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from caffe_tools.entry import main; sys.exit(main())"
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "caffe-layers: interrupted\n")


@pytest.mark.parametrize("name", ["Net", "TRAIN", "TEST", "Training", "Evaluation", "crosscheck", "layer_type"])
def test_the_names_of_the_documentation_are_those_of_the_package(name):
    pytest.importorskip("onnx")
    code = f"import caffe_tools; from caffe_tools import {name}; assert '{name}' in caffe_tools.__all__"
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_the_addresses_of_0_1_still_stand():
    pytest.importorskip("onnx")
    result = python(
        "from caffe_tools.cli import main\n"
        "from caffe_tools.train import Evaluation, Training\n"
        "from caffe_tools.fields import Bool, Enum, Float, Int, Repeated, String, Submessage, UInt\n"
    )
    assert result.returncode == 0, result.stderr


def test_the_layers_run_on_python_3_8():
    pytest.importorskip("vermin")
    command = [sys.executable, "-c", "from vermin import main; main()", "--no-tips", "--violations", "--target=3.8-"]
    targets = [PACKAGES["caffe_layers"], PACKAGES["caffe_tools"] / "entry.py", ROOT / "tests" / "in_caffe"]
    result = subprocess.run(command + [str(path) for path in targets], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout


def test_every_folder_of_code_is_a_package():
    """find: takes only folders with an __init__.py; what lies in another is missing from an installation."""
    for folder in PACKAGES.values():
        for module in folder.rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module
