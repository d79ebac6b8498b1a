"""Losses and activations for Caffe's Python layers, which need numpy alone.

In a prototxt: ``type: "Python" python_param { module: "caffe_layers" layer: "SoftmaxLossLayer" param_str: "..." }``.
Without Caffe: :mod:`caffe_layers.functional`.
"""

from caffe_layers import functional
from caffe_layers.cross_entropy import CrossEntropyLossLayer
from caffe_layers.layer import LabelError, Layer, LayerError, ParameterError, ShapeError
from caffe_layers.npz_data import NpzDataLayer
from caffe_layers.sigmoid import SigmoidLayer
from caffe_layers.sigmoid_cross_entropy import SigmoidCrossEntropyLossLayer
from caffe_layers.sigmoid_focal import SigmoidFocalLossLayer
from caffe_layers.softmax import SoftmaxLayer
from caffe_layers.softmax_focal import SoftmaxFocalLossLayer
from caffe_layers.softmax_loss import SoftmaxLossLayer

LAYERS = (
    SoftmaxLayer,
    SigmoidLayer,
    CrossEntropyLossLayer,
    SoftmaxLossLayer,
    SigmoidCrossEntropyLossLayer,
    SigmoidFocalLossLayer,
    SoftmaxFocalLossLayer,
    NpzDataLayer,
)
"""Every layer class, in the order of the documentation."""

__all__ = [
    "LAYERS",
    "LabelError",
    "Layer",
    "LayerError",
    "ParameterError",
    "ShapeError",
    "functional",
    *(layer.__name__ for layer in LAYERS),
]
