"""What tests ask of an exported model."""

from __future__ import annotations

import numpy as np
import onnx

from caffe_tools.export.export import Exported
from caffe_tools.graph.session import make_session
from caffe_tools.net.net import Net


def inputs_of(exported: Exported) -> list[str]:
    return [value.name for value in exported.model.graph.input]


def outputs_of(exported: Exported) -> list[str]:
    return [value.name for value in exported.model.graph.output]


def initializers_of(exported: Exported) -> list[str]:
    return [tensor.name for tensor in exported.model.graph.initializer]


def run_model(exported: Exported, net: Net, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Output name → array, the model being fed the net's blobs."""
    feeds = {name: net.blobs[name].data for name in inputs_of(exported) if name in net.blobs} | more
    session = make_session(exported.model)
    return dict(zip(outputs_of(exported), session.run(None, feeds), strict=True))


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
