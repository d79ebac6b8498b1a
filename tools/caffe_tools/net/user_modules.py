"""Whose code may be imported, and how it is.

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

from caffe_layers.layer import Layer as CaffeLayer
from caffe_layers.layer import StandInLayer
from caffe_tools.errors import NetError, raised
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM

ALWAYS_ALLOWED = "caffe_layers"


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
            raise NetError(f"importing module {name!r} fails with {raised(error)}") from error


def _is_among(module: str, names: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def is_allowed(spec: LayerSpec, allow_modules: Sequence[str]) -> bool:
    """Whether the user lets the module of the Python layer ``spec`` be imported."""
    return _is_among(spec.read("python_param", PYTHON_PARAM).module or "", allow_modules)


@contextmanager
def _caffe_to_import() -> Iterator[None]:
    """A stand-in for ``caffe`` where there is no real one, in the place of an unrelated package of that name too."""
    if CaffeLayer is not StandInLayer:
        yield
        return
    before = sys.modules.get("caffe")
    stand_in = ModuleType("caffe")
    vars(stand_in).update(Layer=CaffeLayer, TRAIN=0, TEST=1)
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
