"""Texts of small nets, and reading a net's blobs in float64."""

import json

import numpy as np
from real_caffe import caffe


def build(text, phase, folder):
    """A ``caffe.Net`` of this text; the file stands in ``folder``."""
    path = folder / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase)


def input_layer(name, shape):
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def learned_scale(bottom, top):
    """top = 1.0 · bottom, where the 1.0 is a parameter, so that Caffe wants the gradient of top without force_backward.

    The scalar's own gradient is Σ top.diff · bottom.
    """
    return (
        f'layer {{ name: "{top}" type: "Scale" bottom: "{bottom}" top: "{top}" '
        "scale_param { axis: 0 num_axes: 0 filler { value: 1 } } }\n"
    )


def inner_product(bottom, top, outputs):
    """propagate_down asks for the gradient of the bottom, whether or not anything below it learns."""
    return (
        f'layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" propagate_down: true '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" std: 1 }} }} }}\n'
    )


def python_layer(layer, bottoms, tops, parameters=None, more="", name=None):
    """A layer of caffe_layers; ``more`` is further text of the layer, such as its loss_weight."""
    connections = " ".join([f'bottom: "{blob}"' for blob in bottoms] + [f'top: "{blob}"' for blob in tops])
    param_str = json.dumps(parameters or {})
    return (
        f'layer {{ name: "{name or tops[0]}" type: "Python" {connections} {more} '
        f'python_param {{ module: "caffe_layers" layer: "{layer}" param_str: \'{param_str}\' }} }}\n'
    )


def loss_net(layer, scores_shape, labels_shape, parameters=None, more="loss_weight: 1"):
    """data → scores → loss, with the inputs data and label."""
    return (
        input_layer("data", scores_shape)
        + input_layer("label", labels_shape)
        + learned_scale("data", "scores")
        + python_layer(layer, ["scores", "label"], ["loss"], parameters, more)
    )


def data_of(net, blob):
    """A copy: Caffe's arrays are views of memory that the next pass overwrites."""
    return np.array(net.blobs[blob].data, dtype=np.float64)


def diff_of(net, blob):
    return np.array(net.blobs[blob].diff, dtype=np.float64)


def assert_close(measured, expected, relative=1e-5):
    """Equal within ``relative`` of the largest expected value, as float32 sums of mixed signs are."""
    measured, expected = np.asarray(measured, np.float64), np.asarray(expected, np.float64)
    assert measured.shape == expected.shape or measured.size == expected.size == 1
    error, largest = np.abs(measured - expected).max(), np.abs(expected).max()
    assert error <= relative * largest, f"off by {error:.3g}, the largest expected value being {largest:.3g}"
