"""Losses and activations for Caffe's Python layers, which need numpy alone.

In a prototxt: ``type: "Python" python_param { module: "caffe_layers" layer: "SoftmaxLossLayer" param_str: "..." }``.
Without Caffe: :mod:`caffe_layers.functional`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caffe_layers import functional
from caffe_layers.catalogue import LAYERS
from caffe_layers.layer import LabelError, Layer, LayerError, ParameterError, ShapeError

globals().update({layer.__name__: layer for layer in LAYERS})

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

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
