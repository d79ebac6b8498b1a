"""Losses and activations for Caffe's Python layers, which need numpy alone.

In a prototxt: ``type: "Python" python_param { module: "caffe_layers" layer: "SoftmaxLossLayer" param_str: "..." }``.
Without Caffe: :mod:`caffe_layers.functional`.

The layers are imported, and Caffe where there is one, when the first of them is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from caffe_layers.contract import LabelError, LayerError, ParameterError, ShapeError

__all__: list[str]


def __getattr__(name: str) -> Any:
    if name in ("__all__", "LAYERS", "functional") or name.endswith("Layer"):
        _import_all()
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    _import_all()
    return sorted(globals())


def _import_all() -> None:
    # not "from caffe_layers import …", which would ask __getattr__ first
    functional = importlib.import_module("caffe_layers.functional")
    catalogue = importlib.import_module("caffe_layers.catalogue")
    layer = importlib.import_module("caffe_layers.layer")

    names: dict[str, Any] = {each.__name__: each for each in catalogue.LAYERS}
    names.update(LAYERS=catalogue.LAYERS, Layer=layer.Layer, functional=functional)
    errors = (LabelError, LayerError, ParameterError, ShapeError)
    globals().update(names, __all__=sorted([*names, *(error.__name__ for error in errors)]))
