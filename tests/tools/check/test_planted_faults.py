"""A top or a gradient that is 0.1 % too large in the exported model is found, and its layer named; no other is."""

from __future__ import annotations

import pytest

import golden
from caffe_tools import standard
from caffe_tools.check.check import check
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.inputs import feed
from caffe_tools.net.keys import split_key
from nets import FORCE, XAVIER, drawn_net, inputs, layer
from planted import planted

NO_REAL_TOPS = {"DummyData", "Input", "Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "Silence"}
"""Types that are fed, or give nothing."""


def cases() -> dict[str, golden.Case]:
    """For each type a case that a real Caffe ran with it, with few other layers."""
    found: dict[str, golden.Case] = {}
    for kind in ("net", "layer", "loss"):
        for parameter in golden.parameters(kind):
            case = parameter.values[0]
            if case is not None and "Python" not in case.layers:
                found |= dict.fromkeys(case.layers, case)
    return found


CASES = cases()
IMAGE = {"data": (2, 4, 6, 6)}
SAMPLES = {
    "Axpy": ({"a": (2, 4), "x": (2, 4, 3, 3), "y": (2, 4, 3, 3)}, ""),
    "BN": (IMAGE, ""),
    "ConvolutionDepthwise": (IMAGE, f"convolution_param {{ num_output: 4 kernel_size: 3 {XAVIER} }}"),
    "DepthwiseConvolution": (IMAGE, f"convolution_param {{ num_output: 4 group: 4 kernel_size: 3 {XAVIER} }}"),
    "Interp": (IMAGE, "interp_param { height: 9 width: 9 }"),
    "ReLU6": (IMAGE, ""),
    "Reorg": (IMAGE, "reorg_param { stride: 2 }"),
    "ROIPooling": ({**IMAGE, "rois": (3, 5)}, "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 1 }"),
    "Split": (IMAGE, ""),
    "ShuffleChannel": (IMAGE, "shuffle_channel_param { group: 2 }"),
}
"""For types that no real Caffe here knows: their bottoms' shapes, and their parameters."""
NO_SAMPLE = {"AnnotatedData", "HDF5Output", "Proposal", "Region", "PSROIPooling", "Upsample", "Unpooling"}
"""Types that have no sample net here: they need regions, anchors or masks of others."""


def test_every_type_has_a_sample_net_or_is_known_to_have_none():
    assert set(standard.TYPES) <= set(SAMPLES) | NO_REAL_TOPS | NO_SAMPLE | set(CASES) or not CASES


def fed_net(case):
    if isinstance(case, str):
        shapes, rest = SAMPLES[case]
        net = drawn_net(FORCE + inputs(**shapes) + layer("it", case, " ".join(shapes), "top", rest))
        if "rois" in shapes:
            net.blobs["rois"].data[...] = [(0, 0, 0, 3, 3), (1, 1, 2, 5, 5), (1, 0, 0, 5, 5)]
        return net
    net = case.net()
    draw_inputs(net, feed(net, case.arrays(), case.name), 0)
    return net


@pytest.mark.parametrize("type_", sorted((set(CASES) | set(SAMPLES)) - NO_REAL_TOPS))
def test_a_fault_in_a_layer_of_the_type_is_found_and_named(type_):
    case = CASES.get(type_, type_)
    (right,) = check(fed_net(case))
    assert right.agrees, right.first_wrong
    net = fed_net(case)
    names = {placed.name for placed in net.placed if placed.spec.type == type_}
    rows = [row for row in right.rows if row.layer in names and row.largest > 0 and not row.not_finite]
    for key in {split_key(row.key)[0]: row.key for row in rows}.values():  # one of each kind
        with planted(key):
            (result,) = check(fed_net(case))
        assert {row.layer for row in result.rows if not row.agrees} & names, f"{key} is wrong, and was not found"
        assert result.first_wrong.layer in names
