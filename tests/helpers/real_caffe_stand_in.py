"""A module ``caffe`` like a real one, whose Layer is a C++ class of Boost.Python."""

from __future__ import annotations

from pathlib import Path

TEXT = '''
import sys

print("A module that was compiled using NumPy 1.x cannot be run in NumPy 2", file=sys.stderr)
TRAIN, TEST = 0, 1


class ArgumentError(TypeError):
    """Boost.Python's."""


class LayerParameter:
    """protobuf's, which Python has no way to make."""

    def __init__(self):
        raise ArgumentError("LayerParameter cannot be made from Python")


def no_object(self):
    raise ArgumentError("Python argument types in None.None(%s) did not match C++ signature" % type(self).__name__)


class BoostClass(type):
    """Boost.Python.class"""


class Layer(metaclass=BoostClass):
    def __init__(self, layer_param):
        if not isinstance(layer_param, LayerParameter):
            raise ArgumentError("Python argument types in Layer.__init__ did not match C++ signature")

    blobs, type, param_str, phase = (property(no_object) for _ in range(4))

    def setup(self, bottom, top):
        no_object(self)

    reshape = setup


class Net:
    def __init__(self, *of_net):
        raise RuntimeError("no net is made here")
'''


def write(folder: Path) -> Path:
    """The module's file in ``folder``."""
    path = folder / "caffe.py"
    path.write_text(TEXT, encoding="utf-8")
    return path
