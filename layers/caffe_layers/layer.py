"""The Caffe contract: what a Python layer is, and the errors that our layers raise.

``Layer`` is ``caffe.Layer`` where a real Caffe is importable and an equal stand-in elsewhere, so that the same classes
serve a ``type: "Python"`` layer of a Caffe net and any program without Caffe.

Source: Caffe include/caffe/layers/python_layer.hpp, python/caffe/_caffe.cpp.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any

from caffe_layers import params
from caffe_layers.contract import TEST, TRAIN, LabelError, LayerError, ParameterError, ShapeError, StandInLayer

__all__ = ["TEST", "TRAIN", "LabelError", "Layer", "LayerError", "ParameterError", "PluginLayer", "ShapeError"]


def _caffe_layer():
    try:
        caffe = _imported_quietly()
    except Exception:
        # A Caffe that is there but cannot be imported (its protobuf is often older than that of the rest) fails in
        # many ways, and an unrelated package of the same name in any.
        return StandInLayer
    return caffe.Layer if hasattr(caffe, "Layer") and hasattr(caffe, "Net") else StandInLayer


def _imported_quietly():
    """Caffe; what numpy 2 has to say of one that was compiled for numpy 1 (a page, with a stack) helps nobody here."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module("caffe")


Layer: Any = _caffe_layer()


def named(owner, error):
    """The same LayerError with that name in front; a refused parameter becomes a ParameterError."""
    kind = ParameterError if isinstance(error, params.ValueRefused) else type(error)
    return kind(f"{owner}: {error}")


class naming:
    """``with naming(owner)`` puts the name of a layer class or function in front of every LayerError raised inside."""

    def __init__(self, owner):
        self._owner = owner

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, (LayerError, params.ValueRefused)):
            raise named(self._owner, error) from None


class PluginLayer(Layer):
    """A layer with declared parameters: ``setup`` puts their effective values into ``self.params`` (name to value).

    It may not define ``__init__``, which belongs to Caffe.
    """

    parameters: tuple[params.Parameter, ...] = ()
    """What ``param_str`` may say, in order."""
    bottoms: tuple[str, ...] = ()
    """The names of the bottoms in their order; those in brackets are optional."""
    tops: tuple[str, ...] = ()
    """The names of the tops, likewise."""
    function: Any = None
    """What it computes as a function of arrays, for ``caffe_layers.functional``. A loss's function is made there; what
    stands here, if anything, is its name where that of the class does not give it."""

    def setup(self, bottom, top):
        with naming(type(self).__name__):
            self.params = params.read(self.param_str, self.parameters)
            _check_number("bottom", self.bottoms, len(bottom))
            _check_number("top", self.tops, len(top))
        self.top_count = len(top)

    def holds(self, index):
        """What bottom ``index`` may hold, for whoever draws inputs: "class index", "0 or 1", "real" (0 or more),
        "distribution", "probabilities", or None for any data."""
        return None


def _check_number(what, names, number):
    required = sum(not name.startswith("[") for name in names)
    if not required <= number <= len(names):
        wanted = str(required) if required == len(names) else f"{required} to {len(names)}"
        raise ShapeError(f"there are {number} {what}s, but it wants {wanted}: {', '.join(names) or 'none'}")
