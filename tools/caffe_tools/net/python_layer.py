"""A Python layer inside the embedded net, called as Caffe calls it.

Source: Caffe include/caffe/layers/python_layer.hpp, python/caffe/_caffe.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from caffe_layers.contract import LayerError, StandInLayer
from caffe_tools.errors import CaffeToolsError, one_line, place_in_user_code, raised
from caffe_tools.net.blob import Blob, Blobs
from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.user_modules import how_it_ends, import_layer_class, importing_beside
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM

PHASE_NUMBERS = {"TRAIN": 0, "TEST": 1}


def make_instance(cls: Any, param_str: str, phase: str, dtype: np.typing.DTypeLike = np.float32) -> Any:
    """An instance as Caffe makes it: ``param_str``, ``phase`` and ``blobs`` are there before ``setup``."""
    embedded = _without_caffe(cls)
    try:
        instance = embedded(None)
    except TypeError:
        instance = embedded.__new__(embedded)  # its own __init__ takes something else
    instance.param_str = param_str
    instance.phase = PHASE_NUMBERS[phase]
    instance.blobs = Blobs(dtype)
    return instance


def _without_caffe(cls: Any) -> Any:
    """``cls``, or where it is derived from a real Caffe's Layer, which is C++ (its ``__init__`` wants a LayerParameter,
    which Python cannot make, and without its C++ half neither ``blobs`` nor ``type`` can be read or replaced), a class
    like it with a Python half in front of that one."""
    from caffe_layers.layer import Layer

    if Layer is StandInLayer or not issubclass(cls, Layer):
        return cls
    half = type(Layer)("Layer", (Layer,), {"__init__": lambda *of_layer: None, **_IN_PYTHON})
    names = ("__module__", "__qualname__", "__doc__")
    return type(cls)(cls.__name__, (cls, half), {name: getattr(cls, name) for name in names})


_IN_PYTHON: dict[str, Any] = {"blobs": None, "type": "Python", "param_str": "", "phase": 0}
"""What a layer finds in itself before ``setup``; as attributes of a class they hide a base's read-only ones."""


class PythonLayer(EmbeddedLayer):
    """One ``type: "Python"`` layer; pycaffe's ``net.layers[i]``: ``type`` and ``blobs``."""

    type = "Python"

    def __init__(self, spec: LayerSpec, allow_modules: Sequence[str]) -> None:
        self.spec = spec
        p = spec.read("python_param", PYTHON_PARAM)
        if not p.module or not p.layer:
            raise spec.error("python_param must name a module and a layer")
        self._module = p.module
        with self.naming():
            self.layer_class = import_layer_class(p.module, p.layer, allow_modules)
            self.instance = make_instance(self.layer_class, p.param_str, spec.phase)
        self._is_set_up = False

    @property
    def blobs(self) -> list[Blob]:
        return getattr(self.instance, "blobs", [])

    @property
    def makes_data(self) -> bool:
        return not self.spec.bottoms and not hasattr(self.instance, "onnx")

    def allow_force_backward(self, index: int) -> bool:
        """A layer may say, as Caffe's C++ layers do, that ``force_backward`` asks nothing toward this bottom."""
        with self.naming():
            allow = getattr(self.instance, "allow_force_backward", None)
            return True if allow is None else bool(allow(index))

    def holds(self, index: int) -> str | None:
        with self.naming():
            holds = getattr(self.instance, "holds", None)
            return holds(index) if callable(holds) else None

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        with self.naming():
            if not self._is_set_up:
                self.instance.setup(bottoms, tops)
                self._is_set_up = True
            self.instance.reshape(bottoms, tops)

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        with self.naming():
            self.instance.forward(bottoms, tops)

    def backward(
        self, tops: Sequence[Blob], propagate_down: Sequence[bool], bottoms: Sequence[Blob], learn: Sequence[bool]
    ) -> None:
        with self.naming():
            self.instance.backward(tops, list(propagate_down), bottoms)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Run the user's code: what lies beside its module is found, and of every error is said which layer of the net
        raised it, and where in its code."""
        try:
            with importing_beside(self._module):
                yield
        except (CaffeToolsError, LayerError) as error:
            raise self.spec.error(one_line(error) + self._place_of(error)) from error
        except SystemExit as end:
            raise self.spec.error(f"its Python code {how_it_ends(end)}{self._place_of(end)}") from end
        except Exception as error:
            raise self.spec.error(f"its Python code raises {raised(error)}{self._place_of(error)}") from error

    def _place_of(self, error: BaseException) -> str:
        place = place_in_user_code(error, self._module)
        return f" ({place})" if place and place not in str(error) else ""
