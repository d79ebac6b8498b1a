"""``caffe-layers check`` on every example, on a published model against real Caffe's numbers, and on layers that are
broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caffe_tools.command_line.cli import main
from nets import inner_product, inputs, layer, python

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(path.name for path in (ROOT / "prototxt_examples").glob("*.prototxt") if "solver" not in path.name)


def check(tmp_path, *arguments):
    """The exit code, and the comparisons as read from JSON."""
    result = tmp_path / "check.json"
    code = main(["check", *map(str, arguments), "--json", str(result)])
    return code, json.loads(result.read_text())


@pytest.mark.usefixtures("project_root")
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_gives_the_same_numbers_layer_by_layer_and_as_onnx(name, phase, tmp_path):
    code, (comparison,) = check(tmp_path, f"prototxt_examples/{name}", "--phase", phase)
    assert code == 0
    assert comparison["agrees"] and comparison["phase"] == phase
    assert comparison["rows"] and all(row["relative"] <= 1e-5 for row in comparison["rows"])


@pytest.mark.usefixtures("project_root")
@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("deploy")])
def test_in_train_every_learnable_blob_of_an_example_has_its_gradient_compared(name, tmp_path):
    _, (comparison,) = check(tmp_path, f"prototxt_examples/{name}")
    assert comparison["phase"] == "TRAIN"
    compared = {row["key"] for row in comparison["rows"]}
    text = (ROOT / "prototxt_examples" / name).read_text()
    assert sum(key.startswith("pdiff/") for key in compared) == 2 * text.count("num_output")
    assert all(row["largest"] > 0 for row in comparison["rows"] if row["key"].startswith(("diff/", "pdiff/")))


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


def test_a_published_model_gives_real_caffes_numbers_both_ways(shared, tmp_path):
    model, golden = shared / "models" / "mnist_lenet", shared / "golden" / "model_mnist_lenet_digits.npz"
    files = [f"{model}.prototxt", "--weights", f"{model}.caffemodel", "--inputs", golden, "--against", golden]
    code, comparisons = check(tmp_path, *files)
    assert code == 0
    assert [comparison["run"] for comparison in comparisons] == ["layer by layer", "ONNX Runtime"]
    for comparison in comparisons:
        assert {"data/conv1", "data/ip2", "data/prob"} <= {row["key"] for row in comparison["rows"]}
        assert all(row["relative"] <= 1e-5 for row in comparison["rows"])


def test_another_models_weights_do_not_give_real_caffes_numbers(shared, tmp_path):
    golden = shared / "golden" / "model_mnist_lenet_digits.npz"
    model = shared / "models" / "mnist_lenet.prototxt"  # filled at random
    code, comparisons = check(tmp_path, model, "--inputs", golden, "--against", golden)
    assert code == 1
    assert [comparison["first_wrong"]["key"] for comparison in comparisons] == ["data/conv1", "data/conv1"]


# Layers broken on purpose --------------------------------------------------------------------------------------------

BROKEN = """
from caffe_layers import SoftmaxLossLayer as Right


class RightLossLayer(Right):
    pass


class WrongSignLossLayer(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[...] *= -1


class WithoutTopDiffLossLayer(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[...] /= top[0].diff


class WrongScaleLossLayer(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[...] *= 1.001


class OneWrongElementLossLayer(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[1, 2] += 0.1


class WrongForwardLossLayer(Right):
    def onnx(self, op, *bottoms):
        return op.Mul(super().onnx(op, *bottoms)[0], 1.001)


class WrongGradientInOnnxLossLayer(Right):
    def onnx(self, op, *bottoms):
        loss = super().onnx(op, *bottoms)[0]
        same = op.Identity(loss)
        op.define_gradient([same], [loss], lambda diff: [op.Neg(diff)])
        return same


class WritesIntoItsBottomLossLayer(Right):
    def forward(self, bottom, top):
        bottom[0].data[...] -= bottom[0].data.max()
        super().forward(bottom, top)
"""

WRONG_FIRST = {
    "WrongSign": "diff/score",
    "WithoutTopDiff": "diff/score",
    "WrongScale": "diff/score",
    "OneWrongElement": "diff/score",
    "WrongForward": "data/loss",
    "WrongGradientInOnnx": "diff/score",
    "WritesIntoItsBottom": "data/score",
}


@pytest.fixture
def broken_layers(tmp_path, monkeypatch):
    """A module of broken layers that can be imported, and a function that checks a net with one of them."""
    (tmp_path / "broken_layers.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)

    def check_with(kind):
        net = tmp_path / "net.prototxt"
        net.write_text(
            inputs(pixels=(6, 8), label=(6,))
            + inner_product("ip", "pixels", "hidden", outputs=5)
            + layer("relu", "ReLU", "hidden", "hidden")
            + inner_product("ip2", "hidden", "score", outputs=4)
            + python("classify", f"{kind}LossLayer", "score label", "loss", module="broken_layers").replace(
                "loss_weight: 1", "loss_weight: 2.5"
            )
        )
        return check(tmp_path, net, "--allow-module", "broken_layers")

    return check_with


def test_a_right_layer_of_the_users_agrees(broken_layers):
    code, _ = broken_layers("Right")
    assert code == 0


@pytest.mark.parametrize("kind", WRONG_FIRST)
def test_a_broken_layer_is_found_and_named_with_the_blob_that_goes_wrong_first(kind, broken_layers, capsys):
    code, (comparison,) = broken_layers(kind)
    assert code == 1
    assert not comparison["agrees"]
    wrong = comparison["first_wrong"]
    assert (wrong["key"], wrong["layer"]) == (WRONG_FIRST[kind], "classify")
    closing_line = capsys.readouterr().out.splitlines()[-1]
    assert repr(wrong["key"].partition("/")[2]) in closing_line and "'classify'" in closing_line


def test_what_lies_before_the_broken_layer_agrees(broken_layers):
    _, (comparison,) = broken_layers("WrongForward")
    agrees = [row["agrees"] for row in comparison["rows"] if row["key"].startswith("data/")]
    assert agrees == [True, True, False]


def test_the_element_that_is_wrong_is_named(broken_layers):
    _, (comparison,) = broken_layers("OneWrongElement")
    assert comparison["first_wrong"]["where"] == [1, 2]


def test_who_writes_into_a_bottom_is_told(broken_layers, capsys):
    broken_layers("WritesIntoItsBottom")
    assert "layer 'classify' writes into its bottom 'score'" in capsys.readouterr().out
