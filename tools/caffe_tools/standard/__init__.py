"""The standard Caffe layers, each written as ONNX ops with Caffe's exact semantics."""

from caffe_tools.standard import (
    accuracy,
    activation,
    arithmetic,
    arrangement,
    batch_norm,
    convolution,
    data,
    distance_losses,
    inner_product,
    pooling,
    sigmoid_cross_entropy_loss,
    softmax_losses,
)
from caffe_tools.standard.registry import TYPES, Layer, LayerType, build, layer_type

__all__ = [
    "TYPES",
    "Layer",
    "LayerType",
    "accuracy",
    "activation",
    "arithmetic",
    "arrangement",
    "batch_norm",
    "build",
    "convolution",
    "data",
    "distance_losses",
    "inner_product",
    "layer_type",
    "pooling",
    "sigmoid_cross_entropy_loss",
    "softmax_losses",
]
