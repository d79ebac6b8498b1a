"""Every number of every type at its ends and beyond: a result, or a line that names the layer; soon, and in little
memory."""

import resource
import time
import warnings

import numpy as np
import pytest

from caffe_tools import standard
from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blob
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.net import Net
from nets import inputs, layer, net_of
from number_cases import CASES, INTEGERS, REALS, net_with, number_fields
from tables import rows

WITH_NUMBERS = sorted(name for name, kind in standard.TYPES.items() if any(number_fields(kind)))
FED = {"AnnotatedData", "Data", "HDF5Data", "ImageData", "WindowData"}
"""Types whose tops' shapes stand in files: the net is told them."""
FILLED = {"InnerProduct", "DummyData"}
"""Types whose fillers are tried; the others' are the same."""
SLOW = {"MultiBoxLoss", "DetectionOutput", "Proposal"}
FEW_REALS = (1e38, float("nan"))
MOST_SECONDS, MOST_MEMORY = 5, 2 * 2**30


@pytest.fixture
def little_memory():
    """What asks for more than MOST_MEMORY besides what is in use gets a MemoryError."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def run(message, type_):
    tops = range(CASES[type_][1])
    net = Net(message, "TRAIN", input_shapes={f"t{i}": (2, 3) for i in tops} if type_ in FED else {})
    draw_inputs(net, set(), 0)
    net.forward()


@pytest.mark.parametrize("type_", WITH_NUMBERS)
def test_a_number_is_computed_with_or_refused_in_one_line(type_, little_memory):
    for way, declared in number_fields(standard.TYPES[type_]):
        if way[-2].endswith("filler") and type_ not in FILLED:
            continue
        for value in (
            FEW_REALS if declared.kind == "float" and type_ in SLOW else REALS if declared.kind == "float" else INTEGERS
        ):
            begun = time.monotonic()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run(net_with(type_, way, value), type_)
            except NetError as error:
                assert len(error.faults) <= 2, error  # a height and a width
                for fault in error.faults:
                    assert "layer 'it'" in fault and len(fault) < 200 and "\n" not in fault, fault
                if value in (2**31, 2**32 - 1) and way[-1] != "dim":  # a dim may have more
                    assert way[-1] in str(error)
            assert time.monotonic() - begun < MOST_SECONDS


def refusal(text):
    with pytest.raises(NetError) as raised:
        net_of(inputs(data=(2, 3, 4, 4)) + text)
    return str(raised.value)


@pytest.mark.parametrize(
    ("type_", "param", "blamed"),
    rows(
        """
        Deconvolution | convolution_param { num_output: 3 kernel_size: 4294967295 } | kernel_size is 4294967295
        Deconvolution | convolution_param { num_output: 3 kernel_size: 3 stride: 50000 } | stride is 50000
        Convolution | convolution_param { num_output: 3 kernel_size: 3 pad: 60000 } | pad is 60000
        InnerProduct | inner_product_param { num_output: 2000000000 } | num_output is 2000000000
        Interp | interp_param { height: 46000 width: 46000 } | interp_param.height is 46000
        Interp | interp_param { zoom_factor: 100000 } | zoom_factor is 100000
        Upsample | upsample_param { scale: 100000 } | scale is 100000
        Tile | tile_param { tiles: 2147483647 } | tiles is 2147483647
        LRN | lrn_param { local_size: 2147483647 } | local_size is 2147483647
        ROIPooling | roi_pooling_param { pooled_h: 100000 pooled_w: 100000 } | pooled_h is 100000
        """
    ),
)
def test_a_blob_that_is_too_large_names_the_field(type_, param, blamed):
    rois = inputs(rois=(2, 5)) if type_ == "ROIPooling" else ""
    message = refusal(rois + layer("it", type_, "data rois" if rois else "data", "y", param))
    assert f"layer 'it' ({type_}): " in message and message.partition(", but")[0].endswith(blamed)


@pytest.mark.parametrize("type_", ["Input", "DummyData", "Parameter"])
def test_the_shape_of_a_blob_from_nothing_is_bounded(type_):
    message = {"Input": "input_param", "DummyData": "dummy_data_param", "Parameter": "parameter_param"}[type_]
    text = layer("it", type_, "", "y", f"{message} {{ shape {{ dim: 100000 dim: 100000 }} }}")
    assert "layer 'it'" in refusal(text) and "a blob at most 2147483647" in refusal(text)


def test_a_blob_is_not_made_larger_than_caffes():
    with pytest.raises(NetError, match=r"cannot have the shape \(65536, 65536\): .* a blob at most 2147483647"):
        Blob((3,)).reshape(65536, 65536)


def test_the_factor_of_exp_overflows_as_in_caffe():
    text = layer("it", "Exp", "data", "y", "exp_param { base: 1e30 scale: 0.5 shift: 1000000 }")
    assert np.isinf(net_of(inputs(data=(2, 3)) + text).forward()["y"]).all()


@pytest.mark.parametrize("given", ["min_size: 1e38", "min_size: 4 max_size: 3e38", "min_size: nan", "min_size: inf"])
def test_a_prior_box_beyond_ints_is_refused(given):
    message = refusal(layer("it", "PriorBox", "data data", "y", f"prior_box_param {{ {given} }}"))
    assert "layer 'it' (PriorBox): " in message and "_size" in message
