"""Every layer of this folder, found by walking its files: a new layer is one file and stands in no list.

Bases that several layers share, and what is no layer, may stand in any file; the compiled loops (compiled/) and what
losses share (elementwise/, positionwise/) are folders and are not walked.
"""

from __future__ import annotations

import importlib
import os
import pkgutil

from caffe_layers.layer import PluginLayer
from caffe_layers.loss import LossLayer


def _find_layers():
    for file in pkgutil.iter_modules([os.path.dirname(__file__)]):
        if not file.ispkg and file.name != "functional":  # which is made from the layers
            module = importlib.import_module(f"{__package__}.{file.name}")
            for thing in vars(module).values():
                if isinstance(thing, type) and issubclass(thing, PluginLayer) and thing.__module__ == module.__name__:
                    yield thing


LAYERS = tuple(sorted(set(_find_layers()) - {PluginLayer, LossLayer}, key=lambda layer: layer.__name__[:-5]))
"""Every layer class, sorted by name without the ending "Layer"."""
