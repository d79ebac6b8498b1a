"""Thousands of broken nets and weights: every one is read, or refused in one clear line, in bounded time and memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools import prototxt
from caffe_tools.binaryproto import caffemodel
from caffe_tools.errors import CaffeToolsError
from caffe_tools.export.export import export
from caffe_tools.net.net import Net

NETS = {
    "classifier": """
name: "classifier"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } include { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 4 kernel_size: 3 stride: 1 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true axis: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 5 axis: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 1
        include { phase: TRAIN } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" softmax_param { axis: 1 } include { phase: TEST } }
""",
    "shapes": """
name: "shapes"
input: "x" input_shape { dim: 2 dim: 4 dim: 3 }
layer { name: "slice" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { axis: 1 slice_point: 1 } }
layer { name: "flat" type: "Flatten" bottom: "b" top: "flat" flatten_param { axis: 1 end_axis: -1 } }
layer { name: "shape" type: "Reshape" bottom: "a" top: "shaped" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "concat" type: "Concat" bottom: "flat" bottom: "shaped" top: "c" concat_param { axis: 1 } }
layer { name: "tile" type: "Tile" bottom: "c" top: "t" tile_param { axis: 1 tiles: 2 } }
layer { name: "power" type: "Power" bottom: "t" top: "p" power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: "sum" type: "Reduction" bottom: "p" top: "s" reduction_param { operation: MEAN axis: 1 } }
""",
    "plugin": """
name: "plugin"
layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 3 dim: 4 } shape { dim: 3 }
        data_filler { type: "gaussian" std: 1 } data_filler { value: 1 } } }
layer { name: "loss" type: "Python" bottom: "x" bottom: "t" top: "loss" loss_weight: 1 python_param {
        module: "caffe_layers" layer: "SoftmaxLossLayer" param_str: "'axis': 1, 'ignore_label': 255" } }
""",
}
# small enough to run, or too large for any blob
WORDS = (
    "0 1 -1 2 7 99 1e30 0.5 9999999999 nan true MAX layer bottom dim : { } [ ] < ' # é \x00"
    ' "conv" "x" "" "Pooling" "gaussian"'
).split(" ")


@st.composite
def broken_nets(draw):
    """A net with some words left out, doubled, exchanged or replaced."""
    words = NETS[draw(st.sampled_from(sorted(NETS)))].replace("{", " { ").replace("}", " } ").split(" ")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(words) - 1))
        change = draw(st.sampled_from(["drop", "double", "swap", "replace"]))
        if change == "drop":
            del words[place]
        elif change == "double":
            words.insert(place, words[place])
        elif change == "swap":
            other = draw(st.integers(0, len(words) - 1))
            words[place], words[other] = words[other], words[place]
        else:
            words[place] = draw(st.sampled_from(WORDS))
    return " ".join(words)


def check_one_line(error):
    """One line for each fault."""
    for text in error.faults:
        assert text and "\n" not in text and "Traceback" not in text and len(text) < 2000, text
    assert str(error).count("\n") == (len(error.faults) if len(error.faults) > 1 else 0)


@settings(max_examples=2000)
@given(broken_nets(), st.sampled_from(["TRAIN", "TEST"]))
def test_a_broken_net_is_built_or_refused_in_one_line(text, phase):
    try:
        net = Net(prototxt.parse(text, "net.prototxt"), phase)
    except CaffeToolsError as error:
        check_one_line(error)
        return
    assert all(np.isfinite(blob.count) for blob in net.blobs.values())


@settings(max_examples=150)
@given(broken_nets())
def test_what_is_built_also_runs_and_exports_or_is_refused_in_one_line(text):
    try:
        net = Net(prototxt.parse(text, "net.prototxt"), "TEST")
        net.forward()
        export(net)
    except CaffeToolsError as error:
        check_one_line(error)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A .caffemodel of the classifier, as bytes, and a place for broken ones."""
    folder = tmp_path_factory.mktemp("weights")
    net = Net(prototxt.parse(NETS["classifier"]), "TEST")
    net.save(folder / "good.caffemodel")
    return (folder / "good.caffemodel").read_bytes(), folder / "broken.caffemodel"


@settings(max_examples=2500)
@given(data=st.data())
def test_broken_weights_are_read_or_refused_in_one_line(weights, data):
    good, path = weights
    broken = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(broken))
    try:
        caffemodel.read(path)
    except CaffeToolsError as error:
        check_one_line(error)


def test_hostile_lengths_and_shapes_allocate_nothing(weights):
    good, path = weights
    tracemalloc.start()
    for place in range(0, len(good), 7):
        broken = bytearray(good)
        broken[place : place + 5] = b"\xff\xff\xff\xff\x7f"
        path.write_bytes(bytes(broken))
        try:
            caffemodel.read(path)
        except CaffeToolsError as error:
            check_one_line(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
