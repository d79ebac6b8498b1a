"""Exported detectors keep to what OpenCV 5 runs, which these tests do without: what it took when it was tried."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest

from caffe_tools.export.export import ExportOptions, export
from caffe_tools.net.net import Net
from detections import bottoms_of, parameters
from known_nets.mobilenet_ssd import mobilenet_ssd
from known_nets.ssd import ssd300
from nets import net_of
from one_layer import net_over

RUN = frozenset(
    """Add And Cast Concat Constant Conv Div Equal Exp Expand Gather GatherElements Greater GreaterOrEqual Identity Loop
    Max MaxPool Min Mod Mul NonMaxSuppression NonZero Or Pad Range ReduceMax ReduceMin ReduceProd ReduceSumSquare Relu
    Reshape ScatterElements Shape Slice Softmax Split Sqrt Squeeze Sub TopK Transpose Unsqueeze Where""".split()
)
"""The operators of the nets below, which ran in opencv-python-headless 5.0.0.93 with ONNX Runtime's numbers, with and
without anything found. Before one is added here, such a net is to be tried there. Not in it, though ONNX Runtime has
them: Compress (not implemented), MaxRoiPool (not implemented), GatherND (not for bool; no rows end the process)."""


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, and those of the bodies of its loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def ssd_layer(nms: str, rest: str, shared: bool) -> Net:
    rest += f" code_type: CENTER_SIZE share_location: {str(shared).lower()} confidence_threshold: 0.01"
    return net_over("DetectionOutput", bottoms_of(2, 25, 3, shared), parameters(3, nms, rest))


NETS = {
    "ssd300": lambda: net_of(ssd300(divisor=8), "TEST"),
    "mobilenet_ssd": lambda: net_of(mobilenet_ssd(divisor=4), "TEST"),
    "boxes of their own": lambda: ssd_layer("nms_threshold: 0.45 top_k: 10", "keep_top_k: 5", False),
    "an adaptive threshold": lambda: ssd_layer("nms_threshold: 0.9 eta: 0.9 top_k: 10", "keep_top_k: 5", True),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("options", [ExportOptions(), ExportOptions(dynamic_batch=True)], ids=["fixed", "open batch"])
def test_an_exported_detector_has_operators_that_opencv_5_ran(name, options):
    nodes = list(nodes_of(export(NETS[name](), options).model.graph))
    assert {node.op_type for node in nodes} - RUN == set()


@pytest.mark.parametrize("name", NETS)
def test_scatter_elements_counts_its_axis_from_the_front_since_opencv_5_asserts_so(name):
    nodes = list(nodes_of(export(NETS[name]()).model.graph))
    axes = [a.i for node in nodes if node.op_type == "ScatterElements" for a in node.attribute if a.name == "axis"]
    assert axes and min(axes) >= 0
