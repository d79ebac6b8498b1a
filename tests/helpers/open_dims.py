"""One layer built over bottoms whose dims are left open, as for a model that takes images of any size."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from caffe_tools import standard
from caffe_tools.graph.builder import Builder
from caffe_tools.net.net import Net


class _Stored:
    """The layer's host: its learnable blobs are stored tensors, and it has no memory."""

    def __init__(self, op: Builder, net: Net) -> None:
        self.op, self.blobs = op, net.layers[-1].blobs

    def parameter(self, index, shape, filler):
        return self.op.initializer(f"parameter{index}", self.blobs[index].data)

    def state(self, index, shape):
        return None

    def keep(self, index, value):
        pass


def tops_with_open_dims(net: Net, dims: dict[str, tuple], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The tops of the net's last layer, built over inputs of the shapes ``dims`` (a str is open), and run."""
    spec, op = net.spec.layers[-1], Builder()
    bottoms = [op.input(name, dims[name]) for name in spec.bottoms]
    layer = standard.Layer(spec, standard.TYPES[spec.type], _Stored(op, net))
    for index, top in enumerate(standard.build(op, layer, bottoms)):
        op.output(top, f"top{index}")
    model = ir.to_proto(ir.Model(op.graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {name: np.asarray(feeds[name], np.float32) for name in spec.bottoms})
