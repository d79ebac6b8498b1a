"""``from real_caffe import caffe`` gives a real Caffe, or skips the importing test file with the reason."""

import importlib
import os

import pytest


def import_caffe():
    """The module ``caffe`` where it is BVLC's or a fork of it: it has Net and Layer."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # read at import; Caffe logs every layer otherwise
    try:
        module = importlib.import_module("caffe")
    except Exception as error:  # a broken build raises anything, from ImportError to AttributeError
        skip(f"importing caffe gives {type(error).__name__}: {error}")
    if not (hasattr(module, "Net") and hasattr(module, "Layer")):
        skip(f"the caffe at {getattr(module, '__file__', None)} has no Net and Layer")
    module.set_mode_cpu()
    return module


def skip(reason):
    pytest.skip(f"needs a real Caffe: {reason}", allow_module_level=True)


caffe = import_caffe()
