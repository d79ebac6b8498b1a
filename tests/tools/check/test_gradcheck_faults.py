"""What gradcheck says of layers in the habits of public ones: each fault by name, no word against a right one."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from caffe_tools.check.gradcheck import gradcheck, make_layer
from caffe_tools.command_line.cli import main
from caffe_tools.errors import NetError

LAYERS = '''
import random
import caffe
import numpy as np


class Square(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data ** 2
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * bottom[0].data * top[0].diff


class SidesExchanged(Square):
    def backward(self, top, propagate_down, bottom): top[0].diff[...] = bottom[0].diff


class ScalesTopDiffFirst(Square):
    def backward(self, top, propagate_down, bottom):
        top[0].diff[...] *= 2
        bottom[0].diff[...] = bottom[0].data * top[0].diff


class ScalesTopDiffFirstAndIsWrong(Square):
    def backward(self, top, propagate_down, bottom):
        top[0].diff[...] *= 2
        super().backward(top, propagate_down, bottom)


class ClearsTopDiffAfter(Square):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        top[0].diff[...] = 0


class WritesBottomDataInBackward(Square):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].data[...] *= 2


class Adds(Square):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] += 2 * bottom[0].data * top[0].diff


class AddsTheHalf(Square):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] += bottom[0].data * top[0].diff


class SetsTheLargestAlone(Square):
    def reshape(self, bottom, top): top[0].reshape(bottom[0].shape[0])
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data.max(1)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[np.arange(len(top[0].diff)), bottom[0].data.argmax(1)] = top[0].diff


class Scale(Square):
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = np.arange(bottom[0].shape[1]) + 1
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data * self.blobs[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data


class SetsParameterDiff(Scale):
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] = (top[0].diff * bottom[0].data).sum(0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data


class NoParameterDiff(Scale):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff * self.blobs[0].data


class Euclidean(caffe.Layer):
    weighs = True
    sign = (1, -1)
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top):
        self.difference = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference ** 2) / len(self.difference) / 2
    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate(self.sign):
            if propagate_down[i]:
                factor = top[0].diff[0] if self.weighs else 1
                bottom[i].diff[...] = factor * sign * self.difference / len(self.difference)


class IgnoresLossWeight(Euclidean):
    weighs = False


class IgnoresLossWeightAndIsWrong(Euclidean):
    weighs = False
    sign = (1, 1)


class FirstBottomAlone(Euclidean):
    sign = (1,)


class OnlyIfTheFirstIsAsked(Euclidean):
    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            super().backward(top, propagate_down, bottom)


class Float32(caffe.Layer):
    factor, noise = 2, np.float32
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top):
        self.x = np.array(bottom[0].data, dtype=self.noise)
        top[0].data[...] = np.sum(self.x ** 2)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * self.x * top[0].diff[0]


class Float32OffByAThousandth(Float32):
    factor = 2.002


class Float32IgnoresLossWeight(Float32):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * self.x


class Float32Mean(Float32):
    def forward(self, bottom, top):
        self.x = bottom[0].data.astype(np.float32)
        top[0].data[...] = np.mean(np.maximum(self.x, 0) ** 2)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * np.maximum(self.x, 0) * top[0].diff[0] / self.x.size


class Float32Relu(Square):
    def forward(self, bottom, top): top[0].data[...] = np.maximum(bottom[0].data.astype(np.float32), 0)
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff * (bottom[0].data > 0)


class Float32Softmax(Square):
    def forward(self, bottom, top):
        x = bottom[0].data.astype(np.float32)
        e = np.exp(x - x.max(1, keepdims=True))
        self.p = e / e.sum(1, keepdims=True)
        top[0].data[...] = self.p
    def backward(self, top, propagate_down, bottom):
        g = top[0].diff.astype(np.float32)
        bottom[0].diff[...] = self.p * (g - (g * self.p).sum(1, keepdims=True))


class Float32SoftmaxWrong(Float32Softmax):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = self.p * (1 - self.p) * top[0].diff


class Absolute(Square):
    def forward(self, bottom, top): top[0].data[...] = np.abs(bottom[0].data)
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = np.sign(bottom[0].data) * top[0].diff


class Steep(Square):
    def forward(self, bottom, top): top[0].data[...] = np.exp(300 * bottom[0].data)
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 300 * top[0].data * top[0].diff


class Logarithm(Square):
    def forward(self, bottom, top): top[0].data[...] = np.log(bottom[0].data)
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff / bottom[0].data


class TwoTops(Square):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        top[1].reshape(len(bottom[0].data))
    def forward(self, bottom, top):
        top[0].data[...] = 3 * bottom[0].data
        top[1].data[...] = bottom[0].data.sum(1)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 3 * top[0].diff + top[1].diff[:, None]


class TwoTopsLeavesOutOne(TwoTops):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 3 * top[0].diff


class TwoTopsWritesSecond(TwoTops):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        top[1].diff[...] = 0


class CountsItsTops(Square):
    def setup(self, bottom, top):
        if len(top) != 3:
            raise Exception("three tops, please")
    def reshape(self, bottom, top):
        for one in top:
            one.reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        for i, one in enumerate(top):
            one.data[...] = bottom[0].data * (i + 1)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = sum((i + 1) * one.diff for i, one in enumerate(top))


class OptionalTop(Square):
    def reshape(self, bottom, top):
        for one in top:
            one.reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        for one in top:
            one.data[...] = bottom[0].data ** 2


class LabelFirst(caffe.Layer):
    """Its labels come first, must be below the classes, and get no gradient."""
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(len(bottom[0].data))
    def forward(self, bottom, top):
        label = bottom[0].data.astype(int)
        assert (label >= 0).all() and (label == bottom[0].data).all()
        top[0].data[...] = bottom[1].data[np.arange(len(label)), label]
    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            raise Exception("no gradient toward labels")
        bottom[1].diff[...] = 0
        bottom[1].diff[np.arange(len(bottom[0].data)), bottom[0].data.astype(int)] = top[0].diff


class LabelAsIndex(caffe.Layer):
    """A float label fails as an index."""
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(len(bottom[0].data))
    def forward(self, bottom, top):
        for i, label in enumerate(bottom[1].data):
            assert label in (0, 1, 2)
            top[0].data[i] = bottom[0].data[i, int(label)] ** 2
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 0
        for i, label in enumerate(bottom[1].data):
            bottom[0].diff[i, int(label)] = 2 * bottom[0].data[i, int(label)] * top[0].diff[i]


class FailingIndex(Square):
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data[:, [int(bottom[1].data[0]) + 9]]


class Noise(Square):
    def draw(self, shape): return np.random.normal(size=shape)
    def forward(self, bottom, top):
        self.noise = self.draw(bottom[0].shape)
        top[0].data[...] = bottom[0].data * self.noise
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff * self.noise


class PythonNoise(Noise):
    def draw(self, shape): return random.random()


class OwnGenerator(Noise):
    def setup(self, bottom, top): self.generator = np.random.default_rng(3)
    def draw(self, shape): return self.generator.normal(size=shape)


class UnseededGenerator(OwnGenerator):
    def setup(self, bottom, top): self.generator = np.random.default_rng()


class Counter(Noise):
    def setup(self, bottom, top): self.count = 0
    def draw(self, shape):
        self.count += 1
        return 1 / self.count


class CountsInBackward(Square):
    def setup(self, bottom, top): self.factor = 1
    def forward(self, bottom, top): top[0].data[...] = self.factor * bottom[0].data ** 2
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * self.factor * bottom[0].data * top[0].diff
        self.factor += 1


class ShapedInForward(Square):
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        super().forward(bottom, top)


class Talks(Square):
    def forward(self, bottom, top):
        print("a line")
        super().forward(bottom, top)
'''


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """Class name and shapes → the rows of its check."""
    (tmp_path / "faulty_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty_layers", raising=False)
    return lambda name, *shapes, **more: gradcheck(
        make_layer("faulty_layers", name, "", ["faulty_layers"]), shapes or [(3, 4)], **more
    )


def faults(rows):
    return {row.blob: row.note for row in rows if not row.agrees}


TWO = [(3, 4), (3, 4)]
ONLY_LOSS_WEIGHT = (
    "it takes no notice of the diff of its top, that is of loss_weight: this is the only fault, it is right where that"
    " is 1"
)
WRONG_BESIDES = "it takes no notice of the diff of its top, that is of loss_weight, and is wrong besides"
FAULTS = {
    "SidesExchanged": ([], {"bottom[0]": "backward gives it no gradient", "top[0]": "backward writes into its diff"}),
    "ScalesTopDiffFirst": ([], {"top[0]": "backward writes into its diff"}),
    "ScalesTopDiffFirstAndIsWrong": ([], {"bottom[0]": "", "top[0]": "backward writes into its diff"}),
    "ClearsTopDiffAfter": ([], {"top[0]": "backward writes into its diff"}),
    "WritesBottomDataInBackward": ([], {"bottom[0]": "backward writes into its data"}),
    "Adds": ([], {"bottom[0]": "backward adds to its diff where it must set it; the numbers are right"}),
    "AddsTheHalf": ([], {"bottom[0]": "backward adds to its diff where it must set it"}),
    "SetsTheLargestAlone": (
        [],
        {
            "bottom[0]": "backward leaves 9 of 12 elements of its diff as they were, which Caffe does not set to 0; the"
            " numbers are right"
        },
    ),
    "SetsParameterDiff": (
        [],
        {"blobs[0]": "backward sets its diff where it must add (iter_size, shared weights); the numbers are right"},
    ),
    "NoParameterDiff": ([], {"blobs[0]": "backward gives it no gradient"}),
    "IgnoresLossWeight": (TWO, {"bottom[0]": ONLY_LOSS_WEIGHT, "bottom[1]": ONLY_LOSS_WEIGHT}),
    "IgnoresLossWeightAndIsWrong": (TWO, {"bottom[0]": ONLY_LOSS_WEIGHT, "bottom[1]": WRONG_BESIDES}),
    "FirstBottomAlone": (TWO, {"bottom[1]": "backward gives it no gradient (--no-gradient 1 says that it has none)"}),
    "OnlyIfTheFirstIsAsked": (
        TWO,
        {
            "bottom[1]": "backward gives it another gradient where propagate_down asks for it alone; the numbers are"
            " right"
        },
    ),
    "Float32OffByAThousandth": ([], {"bottom[0]": ""}),
    "Float32IgnoresLossWeight": ([], {"bottom[0]": ONLY_LOSS_WEIGHT}),
    "Float32SoftmaxWrong": ([], {"bottom[0]": ""}),
    "TwoTopsLeavesOutOne": (
        [],
        {
            "bottom[0]": "it takes no notice of the diff of top 1: this is the only fault, it is right where nothing"
            " reads that top"
        },
    ),
    "TwoTopsWritesSecond": ([], {"top[1]": "backward writes into its diff"}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_said(name, seed, rows_of):
    shapes, said = FAULTS[name]
    assert faults(rows_of(name, *shapes, seed=seed)) == said


RIGHT = {
    "Square": [],
    "Scale": [],
    "Euclidean": TWO,
    "Float32": [],
    "Float32Mean": [(64, 100)],
    "Float32Relu": [(30, 40)],
    "Float32Softmax": [(4, 10)],
    "Absolute": [],
    "Steep": [],
    "Logarithm": [],
    "TwoTops": [],
    "CountsItsTops": [],
    "LabelFirst": [(3,), (3, 4)],
    "LabelAsIndex": [(4, 3), (4,)],
    "Noise": [],
    "PythonNoise": [],
    "OwnGenerator": [],
    "Counter": [],
    "CountsInBackward": [],
    "ShapedInForward": [],
}
LABELS = {"LabelFirst": {0: 4}, "LabelAsIndex": {1: 3}}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_said_against_a_right_layer(name, seed, rows_of):
    rows = rows_of(name, *RIGHT[name], seed=seed, labels=LABELS.get(name))
    assert faults(rows) == {} and rows[0].backward != 0


@pytest.mark.parametrize("name", ["Float32", "Float32Mean", "Float32Softmax"])
def test_float32_is_named_where_it_explains_the_difference(name, rows_of):
    (row,) = rows_of(name, *RIGHT[name])
    assert row.agrees and row.note == "within the rounding of float32"


def test_labels_are_guessed_where_the_layer_takes_nothing_else(rows_of):
    assert faults(rows_of("LabelAsIndex", (4, 3), (4,))) == {}


def test_at_a_kink_the_gradient_of_either_side_will_do(rows_of):
    (row,) = rows_of("Absolute", (2, 3), given={0: np.array([[0.0, 1, 2], [-1, 0, 3]])})
    assert row.agrees
    assert row.note in ("", "2 of its elements at a kink, where the gradient lies between those of both sides")


def test_what_no_seed_decides_is_refused(rows_of):
    with pytest.raises(NetError, match="UnseededGenerator gives other numbers each time .* no seed of numpy.random"):
        rows_of("UnseededGenerator")


def test_an_index_that_fails_may_be_a_label(rows_of):
    with pytest.raises(
        NetError, match=r"IndexError: .* \(a bottom that holds labels is named by --label INDEX=CLASSES"
    ):
        rows_of("FailingIndex", (3, 4), (3,))


def test_the_number_of_tops_may_be_given(rows_of):
    assert [row.agrees for row in rows_of("OptionalTop")] == [True]
    (row,) = rows_of("OptionalTop", tops=2)
    assert "no notice of the diff of top 1" in row.note


def test_a_bottom_without_a_gradient_may_be_named(rows_of):
    (row,) = rows_of("FirstBottomAlone", *TWO, without_gradient=[1])
    assert row.agrees and row.blob == "bottom[0]"


@pytest.mark.parametrize("more", [{"labels": {2: 3}}, {"without_gradient": [7]}])
def test_a_bottom_that_is_none_is_an_error(more, rows_of):
    with pytest.raises(NetError, match=r"in bottom\[[27]\], but the bottoms are 0 to 1"):
        rows_of("Euclidean", *TWO, **more)


def test_the_users_random_numbers_go_on_as_if_nothing_had_been(rows_of):
    np.random.seed(5)
    expected = np.random.normal()
    np.random.seed(5)
    rows_of("Noise")
    assert np.random.normal() == expected


def test_the_options_of_the_command(rows_of, capsys):
    allowed = ["--allow-module", "faulty_layers"]
    command = ["gradcheck", "faulty_layers:LabelFirst", "--bottom", "3", "--bottom", "3x4", *allowed]
    assert main([*command, "--label", "0=4"]) == 0
    assert main(["gradcheck", "faulty_layers:TwoTops", "--bottom", "2x3", "--top", "2", *allowed]) == 0
    first = ["gradcheck", "faulty_layers:FirstBottomAlone", "--bottom", "3x4", "--bottom", "3x4", *allowed]
    assert main(first) == 1 and main([*first, "--no-gradient", "1"]) == 0
    assert main(["gradcheck", "faulty_layers:Talks", "--bottom", "3x4", *allowed]) == 0
    assert "a line" not in capsys.readouterr().out
    for words, message in (
        (["--label", "1"], "'1' is not of the form INDEX=CLASSES"),
        (["--label", "0=0"], "'0=0' is not of the form INDEX=CLASSES"),
        (["--label", "0=4", "--label", "0=5"], "--label names a bottom twice"),
        (["--label", "5=4"], "labels in bottom[5], but the bottoms are 0 to 1"),
        (["--no-gradient", "-1"], "give a whole number of 0 or more"),
        (["--top", "0"], "give a whole number of 1 or more"),
    ):
        try:
            code = main([*command, *words])
        except SystemExit as end:  # how argparse ends
            code = end.code
        assert code == 2 and message in capsys.readouterr().err


# Layers as people write them ------------------------------------------------------------------------------------------


def test_foreign_layers_are_judged_as_their_index_says(shared, monkeypatch):
    folder = shared / "pylayers"
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, entry in json.loads((folder / "index.json").read_text()).items():
        if entry["backward"] == "none" or entry.get("note") == "needs scipy":
            continue
        kinds = enumerate(entry["bottoms"])
        with np.load(f"{name}.npz") as arrays:
            given = {i: arrays[f"in0/{one['name']}"] for i, one in kinds if one["kind"] != "values"}
        rows = gradcheck(
            make_layer(entry["module"], entry["layer"], entry["param_str"], [entry["module"]]),
            [tuple(one["shape"]) for one in entry["bottoms"]],
            given,
            without_gradient=[i for i, one in enumerate(entry["bottoms"]) if not one["gradient"]],
        )
        assert rows, name
        said = faults(rows)
        if entry["backward"] == "right":
            assert not said, name
        elif entry["backward"] == "wrong":
            assert said and not any("only fault" in note for note in said.values()), name
        else:
            assert said and set(said.values()) == {ONLY_LOSS_WEIGHT}, name
