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

from caffe_layers.contract import TEST, TRAIN, StandInLayer
from caffe_tools.errors import NetError, nearest, one_line, place_in_user_code, raised, short_path
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM

ALWAYS_ALLOWED = "caffe_layers"


_FOLDERS: dict[str, tuple[ModuleType, list[str], list[str]]] = {}
"""A user's module → the module, the folders that what it imports late is looked for in first (the working directory
when it was imported, and where it was found), and in the end: its own folder, where that is another one."""


def import_layer_class(module: str, name: str, allow_modules: Sequence[str]) -> type:
    """The class ``name`` of ``module``; NetError where the module is not allowed, not there, or has no such class.

    ``allow_modules`` names modules or packages.
    """
    if not _is_among(module, (ALWAYS_ALLOWED, *allow_modules)):
        raise NetError(not_allowed(module))
    imported = import_module(module)
    found = getattr(imported, name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(imported).items() if isinstance(value, type)]
        raise NetError(f"module {module!r} has no class {name!r}" + f": {nearest(name, classes)}".rstrip(": "))
    return found


def not_allowed(module: str, why: str = ", since a net may come from a stranger") -> str:
    how = f"allow it with --allow-module {module} (in Python: allow_modules=[{module!r}])"
    return f"module {module!r} is not imported without leave{why}: {how}"


def import_module(name: str) -> ModuleType:
    """A module that the user allows: it may define Python layers, and teach the tools private layer types.

    A layer file begins with ``import caffe``: where no Caffe is installed, it finds a stand-in that has
    ``caffe.Layer``. Raises NetError where the module is not there or fails.
    """
    here = os.getcwd()
    try:
        with _caffe_to_import(), _importing_from([here], []):
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise NetError(_why_not(name, error)) from error
    if name not in _FOLDERS or _FOLDERS[name][0] is not module:
        file = os.path.abspath(getattr(module, "__file__", None) or os.path.join(here, name))
        own = os.path.dirname(file)
        levels = name.count(".") + hasattr(module, "__path__")
        found = os.path.abspath(os.path.join(own, *[os.pardir] * levels))
        _FOLDERS[name] = module, [here, found], [own]
    return module


def _why_not(name: str, error: BaseException) -> str:
    place = place_in_user_code(error, name)
    at = f" ({place})" if place else ""
    if isinstance(error, SystemExit):
        return f"importing module {name!r} {how_it_ends(error)}{at}"
    if isinstance(error, ModuleNotFoundError):
        hint = "; is its folder on PYTHONPATH?" if not place or _is_among(name, [error.name or ""]) else ""
        return f"cannot import module {name!r}: {error}{at}{hint}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"importing module {name!r} fails with {type(error).__name__}: {error.msg}" + (
            f" ({short_path(error.filename)}, line {error.lineno})"
        )
    return f"importing module {name!r} fails with {raised(error)}{at}"


def how_it_ends(end: SystemExit) -> str:
    """What code does that calls ``exit``."""
    return "ends the program" if end.code is None else f"ends the program: {one_line(end.code)}"


def _is_among(module: str, names: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def is_allowed(spec: LayerSpec, allow_modules: Sequence[str]) -> bool:
    """Whether the user lets the module of the Python layer ``spec`` be imported."""
    return _is_among(spec.read("python_param", PYTHON_PARAM).module or "", allow_modules)


_STAND_IN = ModuleType("caffe")
vars(_STAND_IN).update(Layer=StandInLayer, TRAIN=TRAIN, TEST=TEST)


@contextmanager
def _caffe_to_import() -> Iterator[None]:
    """A stand-in for ``caffe`` where there is no real one, in the place of an unrelated package of that name too."""
    from caffe_layers.layer import Layer  # which imports Caffe, so that only nets with Python layers do

    if Layer is not StandInLayer:
        yield
        return
    before = sys.modules.get("caffe")
    sys.modules["caffe"] = _STAND_IN
    try:
        yield
    finally:
        sys.modules.pop("caffe", None)
        if before is not None:
            sys.modules["caffe"] = before


@contextmanager
def importing_beside(module: str) -> Iterator[None]:
    """While code of ``module`` runs, its imports find what they found when it was imported itself."""
    if _is_among(module, (ALWAYS_ALLOWED,)) or module not in _FOLDERS:
        yield
        return
    with _caffe_to_import(), _importing_from(*_FOLDERS[module][1:]):
        yield


@contextmanager
def _importing_from(first: Sequence[str], last: Sequence[str]) -> Iterator[None]:
    before = set(sys.path)
    added = [folder for folder in dict.fromkeys([*first, *last]) if folder not in before]
    sys.path[:0] = [folder for folder in added if folder in first]
    sys.path += [folder for folder in added if folder not in first]
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)
