"""A Python layer inside the embedded net: imported with leave, and called as Caffe calls it.

A prototxt names the module to import, so a net from a stranger is code: only ``caffe_layers`` is imported unless the
user allows more.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from caffe_layers.layer import Layer as CaffeLayer
from caffe_layers.layer import LayerError, StandInLayer
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.net.blob import Blob, Blobs
from caffe_tools.prototxt.messages import PYTHON_PARAM
from caffe_tools.prototxt.net_spec import LayerSpec
from caffe_tools.standard.registry import read_message

ALWAYS_ALLOWED = "caffe_layers"
PHASE_NUMBERS = {"TRAIN": 0, "TEST": 1}


def import_layer_class(module: str, name: str, allow_modules: Sequence[str]) -> type:
    """The class ``name`` of ``module``; NetError where the module is not allowed, not there, or has no such class.

    ``allow_modules`` names modules or packages.
    """
    if not _is_among(module, (ALWAYS_ALLOWED, *allow_modules)):
        raise NetError(
            f"module {module!r} is not imported without leave, since a net may come from a stranger:"
            f" allow it with --allow-module {module} (in Python: allow_modules=[{module!r}])"
        )
    found = getattr(import_module(module), name, None)
    if not isinstance(found, type):
        raise NetError(f"module {module!r} has no class {name!r}")
    return found


def import_module(name: str) -> ModuleType:
    """A module that the user allows: it may define Python layers, and teach the tools private layer types.

    A layer file begins with ``import caffe``: where no Caffe is installed, it finds a stand-in that has
    ``caffe.Layer``. Raises NetError where the module is not there or fails.
    """
    with _caffe_to_import(), _importing_from_here():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise NetError(f"cannot import module {name!r}: {error}; is its folder on PYTHONPATH?") from None
        except Exception as error:
            raise NetError(f"importing module {name!r} fails with {_one_line(error)}") from error


def _is_among(module: str, names: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def is_allowed(spec: LayerSpec, allow_modules: Sequence[str]) -> bool:
    """Whether the user lets the module of the Python layer ``spec`` be imported."""
    return _is_among(read_message(spec, "python_param", PYTHON_PARAM).module or "", allow_modules)


@contextmanager
def _caffe_to_import() -> Iterator[None]:
    """A stand-in for ``caffe`` where there is no real one, in the place of an unrelated package of that name too."""
    if CaffeLayer is not StandInLayer:
        yield
        return
    before = sys.modules.get("caffe")
    stand_in = ModuleType("caffe")
    stand_in.Layer = CaffeLayer
    stand_in.TRAIN, stand_in.TEST = 0, 1
    sys.modules["caffe"] = stand_in
    try:
        yield
    finally:
        del sys.modules["caffe"]
        if before is not None:
            sys.modules["caffe"] = before


@contextmanager
def _importing_from_here() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def make_instance(cls: type, param_str: str, phase: str, dtype: np.typing.DTypeLike = np.float32) -> Any:
    """An instance as Caffe makes it: ``param_str``, ``phase`` and ``blobs`` are there before ``setup``."""
    try:
        instance = cls(None)
    except TypeError:
        # a real Caffe's Layer wants a LayerParameter, which Python cannot make: its Python side works without
        instance = cls.__new__(cls)
    instance.param_str = param_str
    instance.phase = PHASE_NUMBERS[phase]
    try:
        instance.blobs = Blobs(dtype)
    except AttributeError:
        pass  # a real Caffe's blobs cannot be replaced
    return instance


class PythonLayer:
    """One ``type: "Python"`` layer; pycaffe's ``net.layers[i]``: ``type`` and ``blobs``."""

    type = "Python"
    is_loss = False

    def __init__(self, spec: LayerSpec, allow_modules: Sequence[str]) -> None:
        self.spec = spec
        p = read_message(spec, "python_param", PYTHON_PARAM)
        if not p.module or not p.layer:
            raise spec.error("python_param must name a module and a layer")
        with self.naming():
            self.layer_class = import_layer_class(p.module, p.layer, allow_modules)
            self.instance = make_instance(self.layer_class, p.param_str, spec.phase)
        self._is_set_up = False

    @property
    def blobs(self) -> list[Blob]:
        return getattr(self.instance, "blobs", [])

    def allow_force_backward(self, index: int) -> bool:
        """A layer may say, as Caffe's C++ layers do, that ``force_backward`` asks nothing toward this bottom."""
        allow = getattr(self.instance, "allow_force_backward", None)
        return True if allow is None else bool(allow(index))

    def learns(self, index: int) -> bool:
        return True

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
        """Say of every error which layer of the net raised it."""
        try:
            yield
        except (CaffeToolsError, LayerError) as error:
            raise self.spec.error(str(error)) from error
        except Exception as error:
            raise self.spec.error(f"its Python code raises {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
