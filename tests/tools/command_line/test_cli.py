"""The command line: every bad input is one line on standard error, exit code 2 and nothing written; exit code 1 where
numbers disagree; tables without escape codes in a pipe; strict JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.command_line.cli import main
from nets import euclidean_loss, inner_product, inputs, layer, python

ROOT = Path(__file__).resolve().parents[3]

NET = inputs(data=(4, 5), label=(4,)) + inner_product("ip", "data", "score", outputs=5)
CLASSIFIER = NET + python("classify", "SoftmaxLossLayer", "score label", "loss")
REGRESSION = inputs(data=(4, 5), target=(4, 3)) + inner_product("ip", "data", "x") + euclidean_loss("x")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a net.prototxt, that Python imports from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net.prototxt").write_text(CLASSIFIER)
    return tmp_path


def run(capsys, *arguments):
    """The exit code, standard output and standard error of one command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # how argparse ends
        code = end.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# Bad input -----------------------------------------------------------------------------------------------------------

BAD_NETS = {
    "malformed": ("layer { name: 'a' type: ", "net.prototxt:1:"),
    "empty": ("", "net.prototxt: the file is empty"),
    "no layer in this phase": ('name: "net"', "the net has no layer"),
    "unknown layer type": (inputs(data=(4,)) + layer("a", "Sofmax", "data", "y"), "Sofmax"),
    "missing bottom": (inputs(data=(4,)) + layer("a", "ReLU", "dat", "y"), "unknown bottom blob 'dat'"),
    "shape mismatch": (inputs(a=(4, 5), b=(4, 6)) + layer("e", "Eltwise", "a b", "y"), "layer 'e' (Eltwise)"),
    "wrong param_str": (CLASSIFIER.replace('"SoftmaxLossLayer"', '"SoftmaxLossLayer" param_str: "{axis"'), "param_str"),
    "unknown parameter": (CLASSIFIER.replace('"SoftmaxLossLayer"', '"SoftmaxLossLayer" param_str: "axes: 1"'), "axes"),
    "disallowed module": (CLASSIFIER.replace('"caffe_layers"', '"os"'), "--allow-module os"),
    "unknown class": (CLASSIFIER.replace('"SoftmaxLossLayer"', '"SoftmaxLosLayer"'), "has no class 'SoftmaxLosLayer'"),
    "solver": ('net: "train.prototxt" base_lr: 0.1 max_iter: 5', "is a solver"),
    "nothing computed": (inputs(data=(4,)), "there is nothing to compare"),
}


@pytest.mark.parametrize("kind", BAD_NETS)
def test_a_bad_net_is_one_line(kind, here, capsys):
    text, message = BAD_NETS[kind]
    Path("net.prototxt").write_text(text)
    assert_one_line(capsys, "check", "net.prototxt", "--json", "out.json", "--report", "out.html", message=message)


def assert_one_line(capsys, *arguments, message):
    before = sorted(os.listdir("."))
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n") and err.startswith("caffe-layers")
    assert message in err
    assert "Traceback" not in err and "\x1b" not in err
    assert sorted(os.listdir(".")) == before


def write_bad_files():
    """Files that are something else than what they are given as."""
    Path("folder").mkdir()
    Path("binary.prototxt").write_bytes(bytes(range(256)))
    caffemodel.write("other.caffemodel", [("ip", "InnerProduct", [np.ones((2, 2), np.float32)])])
    caffemodel.write("fewer.caffemodel", [("ip", "InnerProduct", [np.ones((5, 5), np.float32)])])
    Path("truncated.caffemodel").write_bytes(Path("other.caffemodel").read_bytes()[:-3])
    Path("weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    Path("broken.npz").write_bytes(b"PK\3\4 no zip")
    np.savez("pickled.npz", data=np.array([{}], dtype=object))
    np.savez("other_keys.npz", data=np.ones(3))
    np.savez("other_blob.npz", **{"in/dat": np.ones((4, 5))})
    np.savez("other_shape.npz", **{"in/label": np.ones(3)})
    np.savez("other_param.npz", **{"param/ip/0": np.ones((4, 6))})
    np.savez("bad_label.npz", **{"in/label": np.array([0, 1, 2, 9])})
    np.savez("other_results.npz", **{"data/other": np.ones(3)})
    Path("lossless.prototxt").write_text(NET)
    Path("raising.py").write_text(
        "import caffe\nclass Raises(caffe.Layer):\n    def setup(self, bottom, top): raise Exception('a\\nb')\n"
        "    def reshape(self, b, t): pass\n    def forward(self, b, t): pass\n    def backward(self, t, p, b): pass\n"
        "class Exits(Raises):\n    def setup(self, bottom, top): raise SystemExit('enough')\nclass Nothing: pass\n"
    )
    Path("broken_module.py").write_text("import no_such_module_at_all\n")
    for name in ("Raises", "Exits"):
        Path(f"{name}.prototxt").write_text(inputs(data=(4,)) + python("own", name, "data", "y", module="raising"))


CHECK, EXPORT = ["check", "net.prototxt"], ["export", "net.prototxt"]
CROSSCHECK = "crosscheck no.onnx --layer SoftmaxLossLayer --bottom x --bottom t --loss loss".split()


def gradcheck_allowed(class_):
    return ["gradcheck", class_, "--bottom", "4", "--allow-module", class_.partition(":")[0]]


BAD_ARGUMENTS = {
    "no command": ([], "COMMAND"),
    "unknown command": (["chekc"], "invalid choice"),
    "unknown option": ([*CHECK, "--wieghts", "x"], "unrecognized arguments"),
    "no net": (["check"], "NET.prototxt"),
    "missing net": (["check", "no.prototxt"], "no.prototxt"),
    "a folder as net": (["check", "folder"], "folder"),
    "a binary file as net": (["run", "binary.prototxt"], "binary.prototxt"),
    "weights as net": (["check", "other.caffemodel"], ".caffemodel holds weights, not the net's text"),
    "missing weights": ([*CHECK, "--weights", "no.caffemodel"], "no.caffemodel"),
    "a folder as weights": ([*CHECK, "--weights", "folder"], "folder"),
    "a net as weights": ([*CHECK, "--weights", "net.prototxt"], "net.prototxt"),
    "weights in HDF5": ([*CHECK, "--weights", "weights.h5"], "HDF5"),
    "truncated weights": ([*CHECK, "--weights", "truncated.caffemodel"], "truncated.caffemodel"),
    "weights of other shapes": ([*CHECK, "--weights", "other.caffemodel"], "weights of another net"),
    "weights of fewer blobs": ([*CHECK, "--weights", "fewer.caffemodel"], "weights of another net"),
    "missing inputs": ([*CHECK, "--inputs", "no.npz"], "no.npz is not there"),
    "a folder as inputs": ([*CHECK, "--inputs", "folder"], "folder is a folder"),
    "broken inputs": ([*CHECK, "--inputs", "broken.npz"], "broken.npz is no .npz"),
    "pickled inputs": ([*CHECK, "--inputs", "pickled.npz"], "pickled.npz is no .npz of plain arrays"),
    "inputs with other keys": ([*CHECK, "--inputs", "other_keys.npz"], "the key 'data' is none that a net is fed"),
    "inputs of another net": (["run", "net.prototxt", "--inputs", "other_blob.npz"], "the net has no blob 'dat'"),
    "inputs of other shapes": ([*CHECK, "--inputs", "other_shape.npz"], "layer 'classify' (Python)"),
    "parameters of other shapes": ([*CHECK, "--inputs", "other_param.npz"], "param/ip/0 has the shape (4, 6)"),
    "a label out of range": ([*CHECK, "--inputs", "bad_label.npz"], "layer 'classify' (Python)"),
    "a missing reference": ([*CHECK, "--against", "no.npz"], "no.npz is not there"),
    "a pickled reference": ([*CHECK, "--against", "pickled.npz"], "pickled.npz is no .npz of plain arrays"),
    "another net's reference": ([*CHECK, "--against", "other_results.npz"], "other_results.npz holds no data/…"),
    "tolerance that is none": ([*CHECK, "--rtol", "nan"], "--rtol: nan is no tolerance"),
    "infinite tolerance": ([*CHECK, "--atol", "inf"], "--atol: inf is no tolerance"),
    "negative tolerance": ([*CHECK, "--rtol", "-1"], "--rtol: -1 is no tolerance"),
    "tolerance in words": ([*CHECK, "--rtol", "small"], "--rtol: small is no tolerance"),
    "unknown phase": ([*CHECK, "--phase", "train"], "--phase: invalid choice"),
    "seed that is no number": ([*CHECK, "--seed", "x"], "--seed: x is no seed"),
    "negative seed": ([*CHECK, "--seed", "-1"], "--seed: -1 is no seed"),
    "crosscheck's negative seed": ([*CROSSCHECK, "--seed", "-1"], "-1 is no seed: give a whole number of 0 or more"),
    "a loss weight that is none": ([*CROSSCHECK, "--loss-weight", "nan"], "nan is no loss weight: give a number"),
    "iterations in words": (["train", "s", "--iterations", "x"], "x is no number of iterations: give a "),
    "negative iterations": (["train", "s", "--iterations", "-1"], "-1 is no number of iterations: give a "),
    "train's negative seed": (["train", "s", "--seed", "-1"], "--seed: -1 is no seed"),
    "level that is no number": ([*CHECK, "--level", "high"], "--level: high is no level: give a whole number"),
    "opset that is no number": ([*EXPORT, "-o", "o.onnx", "--opset", "1.5"], "1.5 is no opset: give a whole number"),
    "an abbreviated option": ([*CHECK, "--weight", "other.caffemodel"], "unrecognized arguments: --weight"),
    "an empty path": ([*CHECK, "--inputs", ""], "--inputs: it is empty"),
    "an option of two lines": ([*CHECK, "--a\nb"], "unrecognized arguments: --a b"),
    "JSON to nowhere": ([*CHECK, "--json", "no/out.json"], "cannot write no/out.json: there is no such folder"),
    "a report over a folder": ([*CHECK, "--report", "folder"], "cannot write folder: "),
    "arrays to nowhere": (["run", "net.prototxt", "--save", "no/out.npz"], "cannot write no/out.npz"),
    "backward of nothing": (["run", "lossless.prototxt", "--backward"], "nothing runs backward in this net"),
    "export without output": (EXPORT, "-o/--output"),
    "export to nowhere": ([*EXPORT, "-o", "no/out.onnx"], "cannot write no/out.onnx"),
    "export of an unknown blob": ([*EXPORT, "-o", "out.onnx", "--blob", "scores"], "did you mean 'score'?"),
    "export over a folder": ([*EXPORT, "-o", "folder"], "cannot write folder: "),
    "input gradients alone": ([*EXPORT, "-o", "o.onnx", "--input-gradients"], "--input-gradients goes with --training"),
    "an old opset": ([*EXPORT, "-o", "o.onnx", "--opset", "11"], "opset 11 is not supported: give 18 to "),
    "an opset to come": ([*EXPORT, "-o", "o.onnx", "--opset", "999"], "opset 999 is not supported: give 18 to "),
    "shape that is none": (["gradcheck", "caffe_layers:SoftmaxLayer", "--bottom", "4by5"], "'4by5' is no shape"),
    "shape beyond any memory": (
        ["gradcheck", "caffe_layers:SoftmaxLayer", "--bottom", "9" * 30],
        "has more than 2147483647",
    ),
    "shape with a zero": (["gradcheck", "caffe_layers:SoftmaxLayer", "--bottom", "4x0"], "'4x0' has a dim below 1"),
    "no shape": (["gradcheck", "caffe_layers:SoftmaxLayer"], "--bottom"),
    "no class": (["gradcheck", "caffe_layers", "--bottom", "4"], "give MODULE:CLASS"),
    "no such class": (["gradcheck", "caffe_layers:Softmax", "--bottom", "4"], "has no class 'Softmax'"),
    "a module without leave": (["gradcheck", "raising:Raises", "--bottom", "4"], "--allow-module raising"),
    "no such module": (gradcheck_allowed("gone:A"), "cannot import module"),
    "a module that fails": (gradcheck_allowed("broken_module:A"), "no_such_module_at_all"),
    "a class that is no layer": (gradcheck_allowed("raising:Nothing"), "raising:Nothing is no Caffe layer"),
    "a layer that raises": (
        gradcheck_allowed("raising:Raises"),
        "layer 'Raises' (Python): its Python code raises Exception: ",
    ),
    "a layer in a net that raises": (["check", "Raises.prototxt", "--allow-module", "raising"], "layer 'own' (Python)"),
    "a layer that ends the program": (["check", "Exits.prototxt", "--allow-module", "raising"], "enough"),
    "too few bottoms": (["gradcheck", "caffe_layers:SoftmaxLossLayer", "--bottom", "4x5"], "takes the bottoms scores"),
    "bottoms that do not fit": (
        ["gradcheck", "caffe_layers:SoftmaxLossLayer", "--bottom", "4x5", "--bottom", "3"],
        "SoftmaxLossLayer: ",
    ),
    "a bad parameter": (
        ["gradcheck", "caffe_layers:SoftmaxLayer", "--bottom", "4x5", "--param-str", "axis: one"],
        "axis",
    ),
    "a data layer": (["gradcheck", "caffe_layers:NpzDataLayer", "--bottom", "4"], "NpzDataLayer"),
    "an unknown layer": (["layers", "SoftmaxLosLayer"], "did you mean 'SoftmaxLossLayer'"),
}


@pytest.mark.parametrize("kind", BAD_ARGUMENTS)
def test_bad_input_is_one_line(kind, here, capsys):
    write_bad_files()
    arguments, message = BAD_ARGUMENTS[kind]
    assert_one_line(capsys, *arguments, message=message)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(here, capsys):
    Path("read_only").mkdir(mode=0o500)
    assert_one_line(capsys, *EXPORT, "-o", "read_only/o.onnx", message="cannot write read_only/o.onnx")


def test_a_result_that_was_there_stays_when_a_command_fails(here, capsys):
    Path("o.onnx").write_bytes(b"old")
    assert_one_line(capsys, *EXPORT, "-o", "o.onnx", "--opset", "11", message="opset")
    assert Path("o.onnx").read_bytes() == b"old"


# check ---------------------------------------------------------------------------------------------------------------


def test_agreement_is_exit_code_0_and_a_table(here, capsys):
    code, out, err = run(capsys, *CHECK)
    assert (code, err) == (0, "")
    assert "data/score" in out and "pdiff/ip/0" in out
    assert out.splitlines()[-1].startswith("All 2 blobs and 3 gradients agree (largest relative difference ")


def test_disagreement_is_exit_code_1_and_names_what_goes_wrong_first(here, capsys):
    assert run(capsys, "run", "net.prototxt", "--save", "results.npz")[0] == 0
    with np.load("results.npz") as stored:
        arrays = dict(stored)
    np.savez("wrong.npz", **{**arrays, "data/score": arrays["data/score"] + 1})
    code, out, err = run(capsys, *CHECK, "--inputs", "wrong.npz", "--against", "wrong.npz", "--json", "out.json")
    assert (code, err) == (1, "")
    assert "The first that goes wrong: blob 'score' (layer 'ip'): off by 1 at" in out
    assert [result["first_wrong"]["key"] for result in strict(Path("out.json").read_text())] == ["data/score"] * 2


def test_tolerances_are_taken(here, capsys):
    run(capsys, "run", "net.prototxt", "--save", "results.npz")
    with np.load("results.npz") as stored:
        arrays = dict(stored)
    np.savez("near.npz", **{**arrays, "data/score": arrays["data/score"] + 0.01})
    against = [*CHECK, "--inputs", "near.npz", "--against", "near.npz"]
    assert run(capsys, *against)[0] == 1
    assert run(capsys, *against, "--atol", "0.011")[0] == 0
    assert run(capsys, *against, "--rtol", "0.1")[0] == 0


def test_what_run_saves_is_a_reference_for_check(here, capsys):
    Path("net.prototxt").write_text(REGRESSION)
    run(capsys, "run", "net.prototxt", "--backward", "--save", "results.npz", "--seed", "3")
    code, out, _ = run(capsys, *CHECK, "--inputs", "results.npz", "--against", "results.npz")
    assert code == 0
    assert "note" not in out
    assert out.count("pdiff/ip/0") == 2


def test_what_run_saves_of_a_net_without_a_loss_has_the_diffs_that_backward_started_from(here, capsys):
    Path("net.prototxt").write_text("force_backward: true\n" + inputs(data=(4, 5)) + inner_product("ip", "data", "x"))
    arguments = ["--phase", "TRAIN", "--inputs", "results.npz"]
    run(capsys, "run", "net.prototxt", "--phase", "TRAIN", "--backward", "--save", "results.npz")
    assert np.load("results.npz")["top_diff/x"].any()
    assert run(capsys, *CHECK, *arguments, "--against", "results.npz")[0] == 0


def test_the_phase_is_train_where_the_net_has_a_loss_and_can_be_told(here, capsys):
    assert "(TRAIN)" in run(capsys, *CHECK)[1]
    assert "(TEST)" in run(capsys, *CHECK, "--phase", "TEST")[1]
    Path("net.prototxt").write_text(NET)
    assert "(TEST)" in run(capsys, *CHECK)[1]


def test_the_phase_is_found_with_the_stages_that_are_given(here, capsys):
    staged = euclidean_loss("x", more='include { stage: "train" }')
    Path("net.prototxt").write_text(REGRESSION.replace(euclidean_loss("x"), staged))
    assert "(TEST)" in run(capsys, *CHECK)[1]
    assert "(TRAIN)" in run(capsys, *CHECK, "--stage", "train")[1]


def test_json_is_strict_where_numbers_are_not_finite(here, capsys):
    Path("net.prototxt").write_text(
        inputs(data=(4, 5)) + layer("log", "Power", "data", "y", "power_param { power: 0.5 shift: -100 }")
    )
    code, out, _ = run(capsys, *CHECK, "--json", "out.json")
    (result,) = strict(Path("out.json").read_text())
    assert code == 0
    assert result["rows"][0]["not_finite"] == 20
    assert "agrees (20 of them not finite)" in out


def test_json_has_words_where_one_side_is_not_finite(here, capsys):
    Path("net.prototxt").write_text(inputs(data=(2, 2)) + layer("relu", "ReLU", "data", "y"))
    np.savez("inf.npz", **{"data/y": np.full((2, 2), np.inf)})
    assert run(capsys, *CHECK, "--against", "inf.npz", "--json", "out.json")[0] == 1
    assert strict(Path("out.json").read_text())[0]["rows"][0]["absolute"] == "Infinity"


def test_the_report_is_a_page_of_its_own(here, capsys):
    run(capsys, *CHECK, "--report", "out.html")
    page = Path("out.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "pdiff/ip/0" in page and "gradients agree" in page
    assert not {"http", "<script", "\x1b"} & set(page.split())


def test_what_a_users_layer_prints_is_passed_on(here, capsys):
    Path("loud.py").write_text(
        "from caffe_layers import SigmoidLayer\nclass Loud(SigmoidLayer):\n"
        "    def forward(self, bottom, top):\n        print('hello')\n        super().forward(bottom, top)\n"
    )
    Path("net.prototxt").write_text(inputs(data=(2, 2)) + python("own", "Loud", "data", "y", module="loud"))
    code, out, err = run(capsys, *CHECK, "--allow-module", "loud")
    assert (code, err) == (0, "")
    assert out.startswith("hello\n")


# The other commands --------------------------------------------------------------------------------------------------


def test_run_shows_the_outputs_and_the_total_loss(here, capsys):
    Path("net.prototxt").write_text(REGRESSION)
    code, out, err = run(capsys, "run", "net.prototxt", "--backward")
    assert (code, err) == (0, "")
    assert "ip/0.diff" in out and out.splitlines()[-1].startswith("total loss ")


def test_export_writes_a_model_and_shows_its_inputs_and_outputs(here, capsys):
    code, out, err = run(capsys, *EXPORT, "-o", "o.onnx", "--training", "--input-gradients", "--dynamic-batch")
    assert (code, err) == (0, "")
    onnx.checker.check_model("o.onnx", full_check=True)
    model = onnx.load("o.onnx")
    assert [value.name for value in model.graph.output][:3] == ["loss", "ip/0.diff", "ip/1.diff"]
    assert [function.name for function in model.functions] == ["SoftmaxLoss", "SoftmaxLossGradient"]
    assert "batch×5" in out and "data.diff" in out


def test_export_inlines_and_takes_an_opset(here, capsys):
    assert run(capsys, *EXPORT, "-o", "o.onnx", "--inline", "--opset", "20")[0] == 0
    model = onnx.load("o.onnx")
    assert not model.functions and model.opset_import[0].version == 20


def test_export_makes_the_blobs_that_are_named_outputs_too(here, capsys):
    Path("net.prototxt").write_text(NET + layer("a", "ReLU", "score", "a") + layer("b", "TanH", "a", "b"))
    assert run(capsys, *EXPORT, "-o", "o.onnx", "--blob", "score", "--blob", "a")[0] == 0
    assert [value.name for value in onnx.load("o.onnx").graph.output][-2:] == ["score", "a"]


def test_gradcheck_agrees_for_a_right_layer(here, capsys):
    shapes = ["--bottom", "4x5", "--bottom", "4"]
    code, out, err = run(capsys, "gradcheck", "caffe_layers:SoftmaxLossLayer", *shapes, "--json", "out.json")
    assert (code, err) == (0, "")
    assert "bottom[0]" in out
    assert strict(Path("out.json").read_text())[0]["agrees"]


def test_gradcheck_disagrees_for_a_wrong_one(here, capsys):
    Path("wrong.py").write_text(
        "from caffe_layers import SigmoidLayer\nclass Wrong(SigmoidLayer):\n"
        "    def backward(self, top, propagate_down, bottom):\n        bottom[0].diff[...] = float('nan')\n"
    )
    code, out, err = run(
        capsys, "gradcheck", "wrong:Wrong", "--bottom", "2,3", "--allow-module", "wrong", "--json", "out.json"
    )
    assert (code, err) == (1, "")
    assert "DIFFERS" in out
    assert strict(Path("out.json").read_text())[0]["backward"] == "NaN"


def test_layers_lists_them_and_shows_one_with_its_parameters(here, capsys):
    code, out, _ = run(capsys, "layers")
    assert code == 0 and "SoftmaxFocalLossLayer" in out and "Convolution" in out
    code, out, _ = run(capsys, "layers", "SoftmaxFocalLossLayer")
    assert code == 0 and "gamma" in out and "background_label" in out
    code, out, _ = run(capsys, "layers", "Pooling")
    assert code == 0 and "global_pooling" in out


# As a process --------------------------------------------------------------------------------------------------------


def process(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    command = [sys.executable, "-m", "caffe_tools", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


def test_a_pipe_gets_no_escape_codes_and_no_progress(here):
    done = process("check", "net.prototxt", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gradients agree" in done.stdout and "\x1b" not in done.stdout


def test_a_process_ends_with_the_exit_code_and_one_line(here):
    done = process("check", "no.prototxt", cwd=here)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no.prototxt" in done.stderr


def test_a_reader_that_goes_away_is_no_error(here):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers"), str(ROOT / "tools")])}
    script = f"{sys.executable} -m caffe_tools layers | head -1"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, env=environment, timeout=120, cwd=here)
    assert done.stderr == ""
    assert done.stdout.startswith("plug-in layers")
