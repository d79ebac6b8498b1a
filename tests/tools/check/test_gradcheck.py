"""The gradient check of a Python layer: right layers agree, and every kind of wrong backward is found."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.check import agreement, differences
from caffe_tools.check.gradcheck import gradcheck, make_layer
from caffe_tools.errors import NetError
from layer_cases import ACTIVATIONS, LOSSES, Case

LAYERS = """
import caffe
import numpy as np


class Square(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data ** 2
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * bottom[0].data * top[0].diff


class WrongSign(Square):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = -2 * bottom[0].data * top[0].diff


class WithoutTopDiff(Square):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * bottom[0].data


class OneElement(Square):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[1, 2] += 1e-3


class NotANumber(Square):
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = np.nan


class Forgotten(Square):
    def backward(self, top, propagate_down, bottom): pass


class Writes(Square):
    def forward(self, bottom, top):
        bottom[0].data[...] -= 1
        super().forward(bottom, top)


class Pick(Square):
    "The scores of given classes; its second bottom holds labels, which the class does not say."
    def reshape(self, bottom, top): top[0].reshape(bottom[0].shape[0])
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data[np.arange(len(bottom[1].data)), bottom[1].data.astype(int)]
    def backward(self, top, propagate_down, bottom):
        if propagate_down[1]:
            raise Exception("no gradient by labels")
        bottom[0].diff[...] = 0
        bottom[0].diff[np.arange(len(bottom[1].data)), bottom[1].data.astype(int)] = top[0].diff


class Scale(Square):
    factor = 1
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = np.arange(bottom[0].shape[1]) + 1
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data * self.blobs[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += self.factor * (top[0].diff * bottom[0].data).sum(0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data


class WrongScale(Scale):
    factor = 2


class Raises(Square):
    def backward(self, top, propagate_down, bottom): raise RuntimeError("not\\nimplemented")


class NoLayer:
    pass
"""


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """Class name and shapes → the rows of its check."""
    (tmp_path / "checked_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, *shapes, **more: gradcheck(
        make_layer("checked_layers", name, "", ["checked_layers"]), shapes or [(3, 4)], **more
    )


def ours(name, *shapes, param_str="", **more):
    return gradcheck(make_layer("caffe_layers", name, param_str, ()), shapes, **more)


@pytest.mark.parametrize(
    "name, shapes, param_str",
    [
        ("SoftmaxLayer", [(3, 4, 2)], "axis: 1"),
        ("SigmoidLayer", [(3, 4)], ""),
        ("CrossEntropyLossLayer", [(3, 4), (3,)], ""),
        ("SoftmaxLossLayer", [(3, 4), (3,)], ""),
        ("SoftmaxLossLayer", [(3, 4), (3, 4), (3,)], "target: multi_label"),
        ("SigmoidCrossEntropyLossLayer", [(3, 4), (3, 4)], "pos_weight: 2"),
        ("SigmoidFocalLossLayer", [(3, 4), (3,)], "target: index"),
        ("SoftmaxFocalLossLayer", [(3, 4, 2, 2), (3, 2, 2)], "gamma: 1.5"),
    ],
)
def test_our_layers_agree(name, shapes, param_str):
    (row,) = ours(name, *shapes, param_str=param_str)
    assert row.agrees and row.blob == "bottom[0]" and row.shape == shapes[0]
    assert row.backward != 0


@pytest.mark.parametrize("name", [*LOSSES, *ACTIVATIONS])
def test_every_layer_agrees_by_itself(name):
    case = Case(name, (3, 4, 2))
    shapes = [case.shape] if name in ACTIVATIONS else [array.shape for array in case.arrays()]
    (row,) = ours(name, *shapes)
    assert row.agrees and row.backward != 0


def test_a_right_layer_of_the_users_agrees(rows_of):
    (row,) = rows_of("Square")
    assert row.agrees and row.relative < 1e-9


@pytest.mark.parametrize("name", ["WrongSign", "WithoutTopDiff", "OneElement", "NotANumber", "Forgotten"])
def test_a_wrong_backward_is_found(name, rows_of):
    (row,) = rows_of(name)
    assert not row.agrees


def test_the_element_that_is_furthest_off_is_named_with_both_values(rows_of):
    (row,) = rows_of("OneElement")
    assert row.where == (1, 2)
    assert row.backward - row.difference == pytest.approx(1e-3, rel=1e-4)


def test_a_layer_that_writes_into_its_bottom_is_found(rows_of):
    (row,) = rows_of("Writes")
    assert not row.agrees and row.note == "the layer writes into it"


def test_learnable_blobs_are_checked_too(rows_of):
    assert [(row.blob, row.shape, row.agrees) for row in rows_of("Scale")] == [
        ("bottom[0]", (3, 4), True),
        ("blobs[0]", (4,), True),
    ]
    assert [(row.blob, row.agrees) for row in rows_of("WrongScale")] == [("bottom[0]", True), ("blobs[0]", False)]


def test_of_a_bottom_that_is_given_as_integers_no_gradient_is_asked(rows_of):
    (row,) = rows_of("Pick", (3, 4), (3,), given={1: np.array([0, 3, 1])})
    assert row.agrees and row.blob == "bottom[0]"


def test_a_bottom_that_is_given_is_not_drawn():
    (row,) = ours("SigmoidLayer", (1, 2), given={0: np.zeros((1, 2))}, seed=3)
    assert row.agrees
    assert abs(row.backward) > 0.01  # 0.25 · top.diff


def test_of_a_large_blob_some_elements_are_checked(rows_of, monkeypatch):
    monkeypatch.setattr(agreement, "LARGEST_BLOB", 5)
    calls = []
    central = differences.central_difference
    monkeypatch.setattr(differences, "central_difference", lambda *args: calls.append(args[1]) or central(*args))
    (row,) = rows_of("Square", (10, 10))
    assert row.agrees and len(calls) == 5


def test_a_blob_without_elements_agrees(rows_of):
    (row,) = rows_of("Square", (0, 4))
    assert row.agrees and row.where == ()


def test_the_seed_decides_what_is_drawn(rows_of):
    one, same, other = (rows_of("Square", seed=seed)[0].backward for seed in (1, 1, 2))
    assert one == same != other


# Errors --------------------------------------------------------------------------------------------------------------


def test_the_wrong_number_of_bottoms_is_an_error_that_names_them():
    with pytest.raises(NetError, match=r"SoftmaxLossLayer takes the bottoms scores, labels, \[weights\], but 1 shapes"):
        ours("SoftmaxLossLayer", (3, 4))


def test_a_class_that_is_no_layer_is_an_error(rows_of):
    with pytest.raises(NetError, match="checked_layers:NoLayer is no Caffe layer: it has no setup, reshape, forward"):
        rows_of("NoLayer")


def test_what_the_layers_code_raises_is_an_error_that_names_it(rows_of):
    with pytest.raises(NetError, match="layer 'Raises' .*RuntimeError: not"):
        rows_of("Raises")


@pytest.mark.parametrize(
    "module, name, message",
    [
        ("os", "PathLike", "module 'os' is not imported without leave"),
        ("caffe_layers", "NoSuchLayer", "module 'caffe_layers' has no class 'NoSuchLayer'"),
        ("caffe_layers", "functional", "module 'caffe_layers' has no class 'functional'"),
    ],
)
def test_a_layer_that_cannot_be_had_is_an_error(module, name, message):
    with pytest.raises(NetError, match=message):
        make_layer(module, name, "", ())
