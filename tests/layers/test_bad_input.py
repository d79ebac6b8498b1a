"""Bottoms that do not fit: one line that names the layer, the bottom, the shapes and what would be right."""

from __future__ import annotations

import numpy as np
import pytest

import caffe_layers
from caffe_layers import LabelError, ParameterError, ShapeError
from caffe_layers import functional as F
from layer_blobs import Run

pytestmark = pytest.mark.usefixtures("engine")

SOFTMAX, SIGMOID = "SoftmaxLossLayer", "SigmoidCrossEntropyLossLayer"


def _message(error, layer, params, *bottoms):
    with pytest.raises(error) as raised:
        Run(getattr(caffe_layers, layer), params, [np.asarray(b, np.float32) for b in bottoms]).forward()
    message = str(raised.value)
    assert message.startswith(f"{layer}: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("layer", "params", "shapes", "words"),
    [
        (
            SOFTMAX,
            "",
            [(4, 5), (4, 5)],
            "have the shape (4, 5) (of the scores' shape: another target than index would fit)",
        ),
        (SOFTMAX, "", [(4, 5, 3), (4, 2)], "the shape (4, 2), but target index wants 12 of them, one per position"),
        (SOFTMAX, "target: distribution", [(4, 5), (4,)], "(4,) (one per position: target index would fit)"),
        (SOFTMAX, "target: multi_label", [(4, 6), (4, 3, 2)], "target multi_label wants the scores' shape (4, 6)"),
        (SIGMOID, "", [(4, 5), (4,)], "would fit), but target multi_label wants 20 of them"),
        (SIGMOID, "target: index", [(4, 5), (4, 5)], "(of the scores' shape: another target than index would fit)"),
        (SOFTMAX, "", [(4, 5), (4,), (3,)], "weights (bottom[2]) have the shape (3,), but there must be 4, one"),
        (SOFTMAX, "", [(4, 5), (4,), (4, 5)], "weights (bottom[2]) have the shape (4, 5), but there must be 4"),
        (SIGMOID, "", [(4, 5), (4, 5), (2, 5)], "one per position of the scores (4, 5) with axis 1, or 20"),
        (SOFTMAX, "", [(4, 0), (4,)], "the scores (bottom[0]) have the shape (4, 0): no channel on axis 1"),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_those_that_would(layer, params, shapes, words):
    assert words in _message(ShapeError, layer, params, *(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("layer", "params", "words"),
    [
        (SOFTMAX, "axis: 2", "axis is 2, but the scores (bottom[0]) have the 2 axes of (4, 5)"),
        (SOFTMAX, "axis: -3", "axis is -3, but"),
        (SOFTMAX, "class_weight: [1, 2]", "class_weight has 2 numbers, but there are 5 channels"),
        (SOFTMAX, "background_label: 5", "background_label is 5, but the labels are 0 to 4"),
        ("SoftmaxFocalLossLayer", "alpha: [1]", "alpha has 1 numbers, but there are 5 channels"),
        (SIGMOID, "target: index, background_label: 6", "background_label is 6, but the labels are 0 to 5"),
        (SIGMOID, "target: index, pos_weight: [1, 2, 3]", "pos_weight has 3 numbers, but there are 5 channels"),
    ],
)
def test_parameters_that_do_not_fit_the_scores_are_errors_at_set_up(layer, params, words):
    with pytest.raises(ParameterError) as raised:
        Run(getattr(caffe_layers, layer), params, [np.zeros((4, 5)), np.zeros(4)])
    assert str(raised.value).startswith(f"{layer}: ") and words in str(raised.value)


@pytest.mark.parametrize(
    ("label", "shown"), [(5, "5.0"), (-1, "-1.0"), (1.5, "1.5"), (np.nan, "nan"), (-1e9, "-1000000000.0")]
)
def test_a_label_that_is_no_class_is_named_with_its_place(label, shown):
    labels = np.zeros((2, 1, 3))
    labels[1, 0, 2] = label
    message = _message(LabelError, SOFTMAX, "ignore_label: 255", np.zeros((2, 5, 3)), labels)
    assert "must be integral and in 0 to 4, or ignore_label (255), but the label at (1, 0, 2) is " + shown in message


def test_the_background_of_a_sigmoid_loss_is_one_more_valid_label():
    scores = np.zeros((1, 3))
    for label in range(4):
        F.sigmoid_focal_loss(scores, [label], target="index")
    assert "in 0 to 3" in _message(LabelError, SIGMOID, "target: index", scores, [4])
    assert "in 0 to 2" in _message(LabelError, SIGMOID, "target: index, background_label: null", scores, [3])


@pytest.mark.parametrize(
    ("layer", "params", "value", "words"),
    [
        (SOFTMAX, "target: distribution", -0.5, "must be finite and 0 or more, but the value at (1, 2) is -0.5"),
        (SOFTMAX, "target: multi_label", np.inf, "must be finite and 0 or more, but the value at (1, 2) is inf"),
        (SOFTMAX, "target: distribution, ignore_label: -1", np.nan, "or ignore_label (-1), but the value at (1, 2)"),
        (SIGMOID, "", 1.5, "must be finite and in 0 to 1, but the value at (1, 2) is 1.5"),
        (SIGMOID, "ignore_label: 255", 2, "in 0 to 1, or ignore_label (255), but the value at (1, 2) is 2.0"),
    ],
)
def test_a_target_out_of_range_is_named_with_its_place(layer, params, value, words):
    targets = np.zeros((2, 4))
    targets[1, 2] = value
    assert words in _message(LabelError, layer, params, np.zeros((2, 4)), targets)


def test_the_place_is_right_behind_the_first_block(monkeypatch):
    monkeypatch.setattr(caffe_layers.blocks, "BLOCK", 8)
    targets = np.zeros((3, 2, 5, 2))
    targets[2, 1, 4, 0] = -1
    message = _message(LabelError, SOFTMAX, "target: distribution", np.zeros((3, 2, 5, 2)), targets)
    assert "the value at (2, 1, 4, 0) is -1" in message


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
@pytest.mark.parametrize("target", ["distribution", "multi_label"])
def test_so_it_is_among_thousands_that_are_0(target, value):
    labels = np.zeros((200, 100), np.float32)
    labels[130, 7], labels[:, 3] = value, 1
    with pytest.raises(LabelError, match=r"the value at \(130, 7\)"):
        F.softmax_loss(np.zeros((200, 100), np.float32), labels, target=target)


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf])
def test_a_weight_that_is_no_weight_is_named_with_its_place(weight):
    message = _message(LabelError, SOFTMAX, "", np.zeros((2, 3)), np.zeros(2), [1, weight])
    assert f"weights (bottom[2]) must be finite and 0 or more, but the one at (1,) is {float(weight)}" in message


def test_the_functional_api_names_the_function():
    with pytest.raises(LabelError, match=r"^softmax_loss: labels \(bottom\[1\]\)"):
        F.softmax_loss(np.zeros((1, 3)), [3])
    with pytest.raises(ParameterError, match="^sigmoid_focal_loss: parameter 'gamma' is -1"):
        F.sigmoid_focal_loss(np.zeros((1, 3)), np.zeros((1, 3)), gamma=-1)
    with pytest.raises(ParameterError, match="^softmax: axis is 2"):
        F.softmax(np.zeros((1, 3)), axis=2)
