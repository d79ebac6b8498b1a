"""Read, run, differentiate, export and check Caffe nets.

``from caffe_tools import Net, TRAIN, TEST``; the names are loaded when first asked for, so that the console script can
say what is missing where only numpy is installed.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "Net": "caffe_tools.net",
    "TRAIN": "caffe_tools.net",
    "TEST": "caffe_tools.net",
    "crosscheck": "caffe_tools.referee",
    "gradient_model": "caffe_tools.gradient.model",
    "Training": "caffe_tools.training",
    "Evaluation": "caffe_tools.training",
    "layer_type": "caffe_tools.standard",
    "python_layer_type": "caffe_tools.standard",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'caffe_tools' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
