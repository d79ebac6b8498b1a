"""One layer over given arrays: in the embedded net, and as the ONNX model that the net is exported as."""

from __future__ import annotations

import numpy as np
import onnxruntime

from caffe_tools.export.export import ExportOptions, export
from caffe_tools.net.net import Net
from nets import FORCE, inputs, layer, net_of


def net_over(
    type_: str, bottoms: dict[str, object], more: str = "", tops: str = "top", phase: str = "TEST", **keywords
) -> Net:
    """A net of one layer, called ``layer``, whose inputs hold ``bottoms``; ``more`` is the rest of its message."""
    shapes = {name: np.shape(array) for name, array in bottoms.items()}
    text = inputs(**shapes) + layer("layer", type_, " ".join(bottoms), tops, more)
    net = net_of(FORCE + text, phase, **keywords)
    for name, array in bottoms.items():
        net.blobs[name].data[...] = array
    return net


def top_of(type_: str, bottoms: dict[str, object], more: str = "", phase: str = "TEST") -> np.ndarray:
    """What the layer makes of the bottoms."""
    return net_over(type_, bottoms, more, phase=phase).forward()["top"]


def diffs_of(net: Net, **top_diffs: np.ndarray) -> dict[str, np.ndarray]:
    """The diffs of the net's inputs for those of its outputs."""
    net.forward()
    return net.backward(**top_diffs)


def exported_tops(net: Net, feeds: dict[str, np.ndarray], dynamic_batch: bool = True) -> dict[str, np.ndarray]:
    """What the exported model computes from ``feeds``, whose batch size may be another than the net's."""
    exported = export(net, ExportOptions(dynamic_batch=dynamic_batch))
    session = onnxruntime.InferenceSession(exported.model.SerializeToString())
    wanted = {key.removeprefix("in/"): name for key, name in exported.inputs.items()}
    values = {wanted[blob]: np.asarray(array, np.float32) for blob, array in feeds.items() if blob in wanted}
    names = {key.removeprefix("data/"): name for key, name in exported.outputs.items()}
    return dict(zip(names, session.run(list(names.values()), values), strict=True))


def assert_transposed(net: Net, blob: str, top: str = "top", seed: int = 0) -> None:
    """The diff of ``blob`` is the transpose of what the layer does to it, where that is linear: the products of any
    values with it, and of what the layer makes of them with the diff of ``top``, are equal."""
    random = np.random.default_rng(seed)
    net.forward()
    dy = random.normal(size=net.blobs[top].shape).astype(np.float32)
    dx = net.backward(**{top: dy})[blob].astype(np.float64)
    net.blobs[blob].data[...] = 0
    offset = net.forward()[top].astype(np.float64).copy()
    for _ in range(3):
        x = random.normal(size=dx.shape).astype(np.float32)
        net.blobs[blob].data[...] = x
        np.testing.assert_allclose((x * dx).sum(), ((net.forward()[top] - offset) * dy).sum(), rtol=1e-4, atol=1e-4)
