"""A Caffe blob as pycaffe shows it: ``data`` and ``diff`` of one shape.

Source: Caffe include/caffe/blob.hpp, python/caffe/_caffe.cpp (``Blob_Reshape``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.standard.limits import too_large


class Blob:
    """Two arrays of one shape: ``data`` (the values) and ``diff`` (the gradient of the loss by them).

    Caffe's blobs are float32; ``dtype=numpy.float64`` serves gradient checks of Python layers.
    """

    def __init__(self, shape: Sequence[int] = (), dtype: np.typing.DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.data = np.zeros(0, self.dtype)
        self.diff = np.zeros(0, self.dtype)
        self.reshape(*shape)

    def reshape(self, *shape: int) -> None:
        """Take another shape. The values are kept where the count stays the same, and are zero otherwise."""
        shape = tuple(int(dim) for dim in shape)
        if any(dim < 0 for dim in shape):
            raise NetError(f"a blob cannot have the shape {shape}: every dim must be 0 or more")
        if reason := too_large(shape):
            raise NetError(f"a blob cannot have the shape {shape}: {reason}")
        if shape == self.data.shape:
            return
        if math.prod(shape) == self.data.size:
            self.data = self.data.reshape(shape)
            self.diff = self.diff.reshape(shape)
        else:
            self.data = np.zeros(shape, self.dtype)
            self.diff = np.zeros(shape, self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size

    @property
    def memory(self) -> int:
        """Where its data lies. Blobs with one memory are one blob, though each may show it in a shape of its own."""
        return memory_of(self.data)

    num = property(lambda self: self._legacy_dim(0))
    channels = property(lambda self: self._legacy_dim(1))
    height = property(lambda self: self._legacy_dim(2))
    width = property(lambda self: self._legacy_dim(3))

    def _legacy_dim(self, axis: int) -> int:
        if self.data.ndim > 4:
            raise NetError(f"num, channels, height and width serve blobs of at most 4 axes, not {self.shape}")
        return self.shape[axis] if axis < self.data.ndim else 1

    def __repr__(self) -> str:
        return f"Blob{self.shape}"


def memory_of(array: np.ndarray) -> int:
    """The address of the array's values; an array that has none is like no other."""
    return array.__array_interface__["data"][0] if array.size else id(array)


class Blobs(list):
    """The learnable blobs of a Python layer, as its ``self.blobs``."""

    def __init__(self, dtype: np.typing.DTypeLike = np.float32) -> None:
        super().__init__()
        self.dtype = np.dtype(dtype)

    def add_blob(self, *shape: int) -> Blob:
        self.append(Blob(shape, self.dtype))
        return self[-1]
