"""What Caffe would not build or run, and the one line that says so: every error of the standard layers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from caffe_tools.errors import CaffeToolsError
from nets import inputs, layer, net_of
from tables import rows

X = (2, 6, 5, 4)
PARAM = {
    "Accuracy": "accuracy_param",
    "Concat": "concat_param",
    "Convolution": "convolution_param",
    "Dropout": "dropout_param",
    "DummyData": "dummy_data_param",
    "Eltwise": "eltwise_param",
    "Flatten": "flatten_param",
    "InfogainLoss": "infogain_loss_param",
    "InnerProduct": "inner_product_param",
    "Input": "input_param",
    "Pooling": "pooling_param",
    "Reshape": "reshape_param",
    "Scale": "scale_param",
    "Slice": "slice_param",
    "Softmax": "softmax_param",
    "SoftmaxWithLoss": "softmax_param",
}


def message_of(described, bottoms, rest=""):
    """The error of one layer, ``Type -> number of tops: its param``, over bottoms of these shapes."""
    described, _, param = described.partition(": ")
    type_, _, tops = described.partition(" -> ")
    shapes = {f"b{index}": shape for index, shape in enumerate(bottoms)}
    rest += f" {PARAM[type_]} {{ {param} }}" if param else ""
    tops = " ".join(f"t{index}" for index in range(int(tops or 1)))
    text = inputs(**shapes) + layer("it", type_, " ".join(shapes), tops, rest)
    with pytest.raises(CaffeToolsError) as raised:
        net_of(text)
    found = str(raised.value)
    assert "\n" not in found
    assert re.match(rf"net\.prototxt:{len(shapes) + 1}:\d+: layer 'it' \({type_}\): ", found), found
    return found.split(f"({type_}): ", 1)[1]


COUNTS = [
    ("ReLU -> 1", [X, X], "it has 2 bottom blobs, but takes 1"),
    ("ReLU -> 1", [], "it has 0 bottom blobs, but takes 1"),
    ("ReLU -> 2", [X], "it has 2 top blobs, but takes 1"),
    ("Silence -> 1", [X], "it has 1 top blobs, but takes 0"),
    ("Eltwise -> 1", [X], "it has 1 bottom blobs, but takes at least 2"),
    ("Scale -> 1", [X, X, X], "it has 3 bottom blobs, but takes 1 to 2"),
    ("SoftmaxWithLoss -> 1", [X], "it has 1 bottom blobs, but takes 2"),
]
AXES = [
    ("Softmax: axis: 4", [X], "axis 4 is out of range for a blob of 4 axes: give -4 to 3"),
    ("Softmax: axis: -5", [X], "axis -5 is out of range for a blob of 4 axes: give -4 to 3"),
    ("Softmax", [(3,)], "axis 1 is out of range for a blob of 1 axes: give -1 to 0"),
    ("InnerProduct: num_output: 2", [(3,)], "axis 1 is out of range for a blob of 1 axes: give -1 to 0"),
    ("Flatten: end_axis: 4", [X], "end_axis 4 is out of range for a blob of 4 axes: give -4 to 3"),
]
DATA = [
    ("Input", [], "shape is given 0 times for 1 tops: give it once, or for each"),
    ("Input -> 3: shape { dim: 1 } shape { dim: 2 }", [], "shape is given 2 times for 3 tops: give it once, or for"),
    ("Input: shape { dim: -1 dim: 2 }", [], "the shape (-1, 2) has a negative dim"),
    ("DummyData", [], "shape is given 0 times for 1 tops: give it once, or for each"),
    ("DummyData -> 3: shape {} data_filler {} data_filler {}", [], "data_filler is given 2 times: give it 0, 1 or 3"),
    ("DummyData: num: 1 channels: 2 height: 3", [], "width is given 0 times for 1 tops: give it once, or for each"),
    ("DummyData: num: 1 shape { dim: 2 }", [], "give shape, or the older num, channels, height and width, not"),
    ("DummyData: shape { dim: 2 } data_filler { type: 'odd' }", [], "unknown filler type 'odd': Caffe has"),
]
CONVOLUTION = [
    ("Convolution: kernel_size: 3", [X], "num_output is missing or 0"),
    ("Convolution: num_output: 2", [X], "kernel_size is missing: give kernel_size, or kernel_h and kernel_w"),
    ("Convolution: num_output: 2 kernel_size: 0", [X], "kernel_size must be 1 or more"),
    ("Convolution: num_output: 2 kernel_size: 3 stride: 0", [X], "stride must be 1 or more"),
    ("Convolution: num_output: 2 kernel_size: 3 dilation: 0", [X], "dilation must be 1 or more"),
    ("Convolution: num_output: 2 kernel_h: 3", [X], "give both kernel_h and kernel_w"),
    ("Convolution: num_output: 2 kernel_size: 3 stride_h: 3", [X], "give both stride_h and stride_w"),
    (
        "Convolution: num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3",
        [X],
        "give kernel_size or kernel_h and kernel_w, not both",
    ),
    (
        "Convolution: num_output: 2 kernel_size: 3 pad: 1 pad: 1 pad: 1",
        [X],
        "pad is given 3 times for 2 spatial axes: give it once or for each",
    ),
    (
        "Convolution: num_output: 2 kernel_h: 3 kernel_w: 3",
        [(2, 3, 4)],
        "kernel_h and kernel_w serve 2 spatial axes, the bottom has 1: give kernel_size",
    ),
    (
        "Convolution: num_output: 4 kernel_size: 1 group: 4",
        [X],
        "group 4 must divide the 6 channels of the bottom and num_output 4",
    ),
    (
        "Convolution: num_output: 4 kernel_size: 1 group: 3",
        [X],
        "group 3 must divide the 6 channels of the bottom and num_output 4",
    ),
    ("Convolution: num_output: 2 kernel_size: 1 group: 0", [X], "group 0 must divide the 6 channels"),
    (
        "Convolution: num_output: 2 kernel_size: 3 dilation: 2",
        [X],
        "its kernel reaches over 5 elements, but axis 3 of bottom 'b0' has 4 and pads of 0",
    ),
    (
        "Convolution: num_output: 2 kernel_size: 1",
        [(2, 3)],
        "bottom 'b0' has the shape 2×3: it needs spatial axes behind the channels on axis 1",
    ),
    ("Convolution: num_output: 2 kernel_size: 1", [X, X], "it has 2 bottoms and 1 tops: it takes one top for each"),
    (
        "Convolution -> 2: num_output: 2 kernel_size: 1",
        [X, (2, 6, 5, 5)],
        "bottom 'b1' has the shape 2×6×5×5, but must have 2×6×5×4: all bottoms of Convolution have one shape",
    ),
    ("InnerProduct: bias_term: false", [X], "num_output is missing or 0"),
]
POOLING = [
    ("Pooling: kernel_size: 2", [(2, 3, 4)], "bottom 'b0' has the shape 2×3×4: it takes 4 axes"),
    ("Pooling: pool: MAX", [X], "kernel_size is missing: give kernel_size, or kernel_h and kernel_w"),
    ("Pooling: kernel_h: 2", [X], "kernel_size is missing: give kernel_size, or kernel_h and kernel_w"),
    ("Pooling: kernel_size: 2 kernel_h: 2 kernel_w: 2", [X], "give kernel_size, or kernel_h and kernel_w, not both"),
    ("Pooling: kernel_size: 0", [X], "kernel [0, 0] and stride [1, 1] must be 1 or more"),
    ("Pooling: kernel_size: 2 stride: 0", [X], "kernel [2, 2] and stride [0, 0] must be 1 or more"),
    ("Pooling: kernel_size: 2 stride_h: 2", [X], "give stride, or stride_h and stride_w"),
    ("Pooling: kernel_size: 3 pad: 1 pad_h: 1 pad_w: 1", [X], "give pad, or pad_h and pad_w"),
    ("Pooling: kernel_size: 2 pad: 2", [X], "pads [2, 2] must be smaller than the kernel [2, 2]"),
    ("Pooling: kernel_size: 9 round_mode: FLOOR", [X], "a window of [9, 9] does not fit the bottom's 5×4"),
    ("Pooling: kernel_size: 2 pool: STOCHASTIC", [X], "pool STOCHASTIC is not covered"),
    ("Pooling -> 2: kernel_size: 2 pool: AVE", [X], "a second top (the mask) is offered by pool MAX alone"),
    ("Pooling: global_pooling: true kernel_size: 2", [X], "global_pooling takes no kernel size"),
    ("Pooling: global_pooling: true pad: 1", [X], "global_pooling takes no pad and no stride"),
    ("Pooling: global_pooling: true stride: 2", [X], "global_pooling takes no pad and no stride"),
]
SEVERAL = [
    ("PReLU", [(3,)], "bottom 'b0' has the shape 3: it takes 2 axes or more"),
    ("Dropout: dropout_ratio: 1", [X], "dropout_ratio 1.0 must be at least 0 and less than 1"),
    ("Dropout: dropout_ratio: -0.1", [X], "dropout_ratio -0.1 must be at least 0 and less than 1"),
    ("BatchNorm", [(3,)], "bottom 'b0' has the shape 3: it takes 2 axes or more"),
    (
        "Eltwise",
        [X, (2, 6, 5)],
        "bottom 'b1' has the shape 2×6×5, but must have 2×6×5×4: all bottoms of Eltwise have one shape",
    ),
    ("Eltwise: operation: PROD coeff: 1 coeff: 2", [X, X], "coeff goes with operation SUM, not PROD"),
    ("Eltwise: coeff: 1", [X, X], "coeff is given 1 times for 2 bottoms: give it once for each"),
    ("Scale: num_axes: -2", [X], "num_axes -2 must be -1 or more"),
    ("Scale: num_axes: 4", [X], "num_axes 4 from axis 1 on is too many for a blob of 4 axes"),
    ("Scale", [X, (6, 4)], "bottom 'b1' has the shape 6×4, but must have 6×5: it applies from axis 1 on"),
    ("Scale: axis: 3", [X, (4, 2)], "bottom 'b1' of shape 4×2 reaches beyond the axes of 2×6×5×4 when it starts"),
]
MOVED = [
    ("Concat: axis: 1 concat_dim: 1", [X], "give axis or the older concat_dim, not both"),
    ("Concat", [X, (2, 6, 5)], "bottom 'b1' has the shape 2×6×5, which differs from 2×6×5×4 of bottom 'b0'"),
    ("Concat", [X, (3, 6, 5, 4)], "bottom 'b1' has the shape 3×6×5×4, which differs from 2×6×5×4 of bottom"),
    ("Slice -> 2: axis: 1 slice_dim: 1", [X], "give axis or the older slice_dim, not both"),
    ("Slice -> 3: slice_point: 2", [X], "slice points [2] must be 2 rising numbers between 0 and 6"),
    ("Slice -> 3: slice_point: 3 slice_point: 3", [X], "slice points [3, 3] must be 2 rising numbers between 0 and 6"),
    ("Slice -> 2: slice_point: 7", [X], "slice points [7] must be 1 rising numbers between 0 and 6"),
    ("Slice -> 2: axis: 2", [X], "axis 2 has 5 elements, which 2 tops cannot share equally"),
    ("Flatten: axis: 3 end_axis: 1", [X], "end_axis 1 stands before axis 3"),
    ("Reshape: shape { dim: 7 }", [X], "cannot reshape 2×6×5×4 to 7: the counts do not match"),
    ("Reshape: shape { dim: 7 dim: -1 }", [X], "cannot reshape (2, 6, 5, 4) to (7, -1): the counts do not match"),
    ("Reshape: shape { dim: -1 dim: -1 }", [X], "its shape [-1, -1] may hold one -1 and no other negative dim"),
    ("Reshape: shape { dim: -2 }", [X], "its shape [-2] may hold one -1 and no other negative dim"),
    ("Reshape: axis: 5 shape { dim: 1 }", [X], "axis 5 is out of range for a blob of 4 axes"),
    ("Reshape: axis: -6 shape { dim: 1 }", [X], "axis -6 is out of range for a blob of 4 axes"),
    ("Reshape: axis: 2 num_axes: 3", [X], "num_axes 3 from axis 2 on is out of range for a blob of 4 axes"),
    ("Reshape: num_axes: -2", [X], "num_axes -2 from axis 0 on is out of range for a blob of 4 axes"),
    (
        "Reshape: axis: 4 num_axes: 0 shape { dim: 0 }",
        [X],
        "dim 0 of its shape is 0 (copy), but the bottom has no axis 4",
    ),
]
LOSSES = [
    ("SoftmaxWithLoss", [(4, 3), (3,)], "bottom 'b1' of shape 3 must have the first dim of the scores' 4×3"),
    ("SoftmaxWithLoss", [(4, 3), ()], "bottom 'b1' of shape () (a scalar) must have the first dim of the scores'"),
    (
        "SoftmaxWithLoss",
        [(4, 3, 2), (4,)],
        "bottom 'b1' of shape 4 must have one label for each of the 4×2 positions of the scores' 4×3×2",
    ),
    ("SigmoidCrossEntropyLoss", [(4, 3), (3, 4)], "bottom 'b1' of shape 3×4 must have the first dim of the scores'"),
    ("SigmoidCrossEntropyLoss", [(4, 3), (4,)], "bottom 'b1' of shape 4 must have as many elements as the scores'"),
    ("MultinomialLogisticLoss", [(4, 3), (4, 2)], "bottom 'b1' of shape 4×2 must have one label for each of the 4"),
    ("MultinomialLogisticLoss", [(1, 1, 1, 1, 1), (1,)], "bottom 'b0' has the shape 1×1×1×1×1: it takes 1 to 4 axes"),
    ("EuclideanLoss", [(4, 3), (4, 2)], "bottom 'b1' has the shape 4×2, but must have 4×3: both bottoms have as"),
    ("EuclideanLoss", [(1, 1, 1, 1, 1), (1, 1, 1, 1, 1)], "bottom 'b0' has the shape 1×1×1×1×1: it takes 1 to 4 axes"),
    ("EuclideanLoss", [(), ()], "bottom 'b0' has the shape () (a scalar): it takes 1 to 4 axes"),
    ("HingeLoss", [(4, 3), (3,)], "bottom 'b1' of shape 3 must have the first dim of the scores' 4×3"),
    ("HingeLoss", [(4, 3), (4, 3)], "bottom 'b1' of shape 4×3 must have one label for each of the 4 rows"),
    ("ContrastiveLoss", [(4, 3), (4, 2), (4,)], "bottom 'b1' has the shape 4×2, but must have 4×3: both bottoms of"),
    ("ContrastiveLoss", [(4, 3), (4, 3), (3,)], "bottom 'b2' of shape 3 must have one label for each of the 4"),
    ("ContrastiveLoss", [(4, 3, 2), (4, 3, 2), (4,)], "bottom 'b0' has the shape 4×3×2: it takes vectors"),
    ("InfogainLoss", [(4, 3), (4,)], "the infogain matrix is missing: give it as third bottom, or as source"),
    ("InfogainLoss: source: 'none.binaryproto'", [(4, 3), (4,)], "the infogain matrix none.binaryproto is not there"),
    ("InfogainLoss", [(4, 3), (4,), (3, 4)], "bottom 'b2' has the shape 3×4, but the infogain matrix is 3×3"),
    ("Accuracy: top_k: 4", [(4, 3), (4,)], "top_k 4 must be 1 to 3, the number of classes"),
    ("Accuracy: top_k: 0", [(4, 3), (4,)], "top_k 0 must be 1 to 3, the number of classes"),
    ("Accuracy", [(4, 3), (5,)], "bottom 'b1' of shape 5 must have one label for each of the 4 positions"),
]


@pytest.mark.parametrize(
    ("described", "bottoms", "message"), [*COUNTS, *AXES, *DATA, *CONVOLUTION, *POOLING, *SEVERAL, *MOVED, *LOSSES]
)
def test_a_layer_that_caffe_would_not_build_is_an_error_that_says_what_would_be_right(described, bottoms, message):
    assert message_of(described, bottoms).startswith(message)


@pytest.mark.parametrize(
    ("type_", "rest", "message"),
    rows(
        """
        InfogainLoss | loss_param { normalize: true } | InfogainLoss takes normalization, not the older normalize
        BatchNorm | param { lr_mult: 1 } | lr_mult must be 0: its stored blobs are statistics
        ReLU | relu_param { } relu_param { } | relu_param is given 2 times, give it once
        ReLU | relu_param: 3 | relu_param is written as relu_param { … }
        ReLU | relu_param { negative_slop: 1 } | relu_param has no field 'negative_slop': did you mean 'negative_
        ReLU | relu_parm { negative_slope: 1 } | it has no field 'relu_parm': did you mean 'relu_param'?
        ReLU | propagate_dwon: true | it has no field 'propagate_dwon': did you mean 'propagate_down'?
        """
    ),
)
def test_a_field_that_says_what_caffe_would_not_take_is_an_error(type_, rest, message):
    bottoms = [(4, 3), (4,), (3, 3)] if type_ == "InfogainLoss" else [X]
    assert message_of(type_, bottoms, rest).startswith(message)


def test_an_error_about_a_field_tells_where_the_field_stands():
    text = inputs(x=X) + 'layer { name: "it" type: "ReLU" bottom: "x" top: "y"\n  relu_param { slope: 1 } }'
    with pytest.raises(CaffeToolsError, match=r"^net\.prototxt:3:16: layer 'it' \(ReLU\): relu_param has no field"):
        net_of(text)


# --- labels: Caffe reads beside its scores


@pytest.mark.parametrize(
    "type_", ["SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss", "InfogainLoss", "Accuracy"]
)
@pytest.mark.parametrize(
    ("label", "text"), [(3, "3"), (-1, "-1"), (1e9, "1e+09"), (np.nan, "nan")], ids=["C", "-1", "large", "nan"]
)
def test_a_label_out_of_range_is_an_error_that_names_its_place(type_, label, text):
    shapes = {"x": (4, 3), "t": (4,)} | ({"h": (3, 3)} if type_ == "InfogainLoss" else {})
    net = net_of(inputs(**shapes) + layer("it", type_, " ".join(shapes), "y"))
    net.blobs["t"].data[...] = [0, 2, label, 1]
    with pytest.raises(CaffeToolsError) as raised:
        net.forward()
    found = f"net.prototxt:{len(shapes) + 1}:1: layer 'it' ({type_}): bottom 't' holds the label {text} at (2,)"
    assert str(raised.value) == f"{found}: labels are 0 to 2"


def test_the_ignored_label_may_be_out_of_range():
    rest = "loss_param { ignore_label: 255 }"
    net = net_of(inputs(x=(4, 3), t=(4,)) + layer("it", "SoftmaxWithLoss", "x t", "y", rest))
    net.forward(t=np.array([255, 0, 1, 2]))
    with pytest.raises(CaffeToolsError, match=r"holds the label 254 at \(1,\): labels are 0 to 2, or 255 \(ignored\)"):
        net.forward(t=np.array([255, 254, 1, 2]))
