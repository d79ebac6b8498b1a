"""Which engine computes: numba's compiled code where it can be imported (the extra "fast"), else numpy.

CAFFE_LAYERS_ENGINE=numpy or numba chooses. The compiled code serves float32; float64, which is for checking, is always
numpy's.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import numpy as np

from caffe_layers.contract import ParameterError

_modules: dict = {}


def compiled(module, dtype):
    """The module of that name with the compiled functions, or None where numpy is to compute."""
    choice = os.environ.get("CAFFE_LAYERS_ENGINE", "")
    if choice not in ("", "numpy", "numba"):
        raise ParameterError(f"CAFFE_LAYERS_ENGINE is '{choice}', but must be numpy or numba")
    if choice == "numpy" or dtype != np.float32:
        return None
    if module not in _modules:
        _modules[module] = _load(module)
    if _modules[module] is None and choice == "numba":
        raise ParameterError("CAFFE_LAYERS_ENGINE is numba, but there is none: pip install 'caffe-layers[fast]'")
    return _modules[module]


def _load(module):
    try:
        from numba.core import event
    except ImportError:
        return None
    if not _modules:
        event.register("numba:compile", _notice(event.Listener))
    return importlib.import_module(module)


def _notice(listener: Any):
    """A numba event listener that says on a terminal, once, that a kernel of ours is being compiled."""

    class Notice(listener):
        said = False

        def on_start(self, event):
            ours = event.data["dispatcher"].py_func.__module__.startswith("caffe_layers.")
            if ours and not self.said and sys.stderr.isatty():
                self.said = True
                print("caffe_layers: compiling for this machine, once, for a few seconds", file=sys.stderr)

        def on_end(self, event):
            """Nothing to say."""

    return Notice()
