"""The standard Caffe layers, each written as ONNX ops with Caffe's exact semantics.

Every file of the chapters beside this one is imported here, and registers its layer types.
"""

import importlib
import pkgutil

from caffe_tools.standard.layer import Layer, Sharing, build
from caffe_tools.standard.registry import PYTHON_TYPES, TYPES, LayerType, known_type, layer_type, python_layer_type

__all__ = [
    "PYTHON_TYPES",
    "TYPES",
    "Layer",
    "LayerType",
    "Sharing",
    "build",
    "known_type",
    "layer_type",
    "python_layer_type",
]

for _file in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_file.name)
