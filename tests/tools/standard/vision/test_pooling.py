"""Pooling of images of any size in an exported graph, against Caffe's definition."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from caffe_tools import prototxt, standard
from caffe_tools.errors import NetError
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.net_spec import read_net
from caffe_tools.standard.vision.pooling import output_size

NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 2 dim: 9 dim: 9 }} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param {{ {} }} }}
"""


def by_definition(x, average, kernel, stride, pad, ceil):
    """Caffe's loops (pooling_layer.cpp) on square windows."""
    height, width = x.shape[2:]
    rows, columns = (output_size(size, kernel, stride, pad, ceil, pad > 0) for size in (height, width))
    y = np.empty((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, height + pad), min(left + kernel, width + pad)
            count = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            y[:, :, i, j] = window.sum((2, 3)) / count if average else window.max((2, 3))
    return y


def session(parameters):
    spec = read_net(prototxt.parse(NET.format(parameters)), "TEST").layers[1]
    op = Builder()
    x = op.input("x", ["n", 2, "h", "w"])
    (y,) = standard.build(op, standard.Layer(spec, standard.TYPES["Pooling"], None), [x])
    op.output(y, "y")
    return onnxruntime.InferenceSession(ir.to_proto(ir.Model(op.graph, ir_version=10)).SerializeToString())


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize(
    "kernel, stride, pad", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 2, 1), (5, 3, 2), (3, 3, 2), (3, 1, 1)]
)
def test_a_graph_for_images_of_any_size_pools_as_caffe(pool, ceil, kernel, stride, pad):
    mode = "CEIL" if ceil else "FLOOR"
    run = session(f"pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode}")
    random = np.random.default_rng(0)
    for height in range(kernel, kernel + 7):
        x = random.normal(size=(2, 2, height, 11)).astype(np.float32)
        wanted = by_definition(x, pool == "AVE", kernel, stride, pad, ceil)
        found = run.run(None, {"x": x})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=f"height {height}")


def test_windows_that_may_lie_beyond_the_image_need_its_size():
    with pytest.raises(NetError, match="strides .3, 3. beyond the kernel .2, 2. need a fixed image size"):
        session("pool: MAX kernel_size: 2 stride: 3")
