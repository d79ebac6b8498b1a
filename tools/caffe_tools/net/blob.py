"""A Caffe blob as pycaffe shows it: ``data`` and ``diff`` of one shape.

Source: Caffe src/caffe/blob.cpp (``Reshape``, ``ShareData``, ``ShareDiff``), python/caffe/_caffe.cpp
(``Blob_Reshape``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.standard.limits import too_large


class Blob:
    """Two arrays of one shape: ``data`` (the values) and ``diff`` (the gradient of the loss by them).

    Each is a view of memory that may be larger than the blob, since it is kept while the blob shrinks and grows, and
    that other blobs may share. As in pycaffe, the arrays cannot be replaced: write ``blob.data[...] = values``.
    Caffe's blobs are float32; ``dtype=numpy.float64`` serves gradient checks of Python layers.
    """

    def __init__(self, shape: Sequence[int] = (), dtype: np.typing.DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self._memory = {"data": np.zeros(0, self.dtype), "diff": np.zeros(0, self.dtype)}
        """The flat arrays that ``data`` and ``diff`` are views of."""
        self._views = dict(self._memory)
        self.reshape(*shape)

    @property
    def data(self) -> np.ndarray:
        return self._views["data"]

    @data.setter
    def data(self, value: object) -> NoReturn:
        raise _no_setter("data")

    @property
    def diff(self) -> np.ndarray:
        return self._views["diff"]

    @diff.setter
    def diff(self, value: object) -> NoReturn:
        raise _no_setter("diff")

    def reshape(self, *shape: int) -> None:
        """Take another shape. Only a blob that outgrows its memory gets a new one, of zeros."""
        shape = tuple(int(dim) for dim in shape)
        if any(dim < 0 for dim in shape):
            raise NetError(f"a blob cannot have the shape {shape}: every dim must be 0 or more")
        if reason := too_large(shape):
            raise NetError(f"a blob cannot have the shape {shape}: {reason}")
        if shape == self._views["data"].shape == self._views["diff"].shape:
            return
        count = math.prod(shape)
        for part, memory in self._memory.items():
            if count > memory.size:
                self._memory[part] = np.zeros(count, self.dtype)
            self._views[part] = self._memory[part][:count].reshape(shape)

    # Memory in common ------------------------------------------------------------------------------------------------

    def share_data(self, other: Blob) -> None:
        """Hold the data in the other blob's memory from now on (Caffe's ``ShareData``); the counts must agree."""
        self._share("data", other)

    def share_diff(self, other: Blob) -> None:
        """As ``share_data``, for the diff."""
        self._share("diff", other)

    def _share(self, part: str, other: Blob) -> None:
        memory = other._memory[part]
        if self._memory[part] is not memory:
            view = other._views[part]
            self._memory[part] = memory
            self._views[part] = view if view.shape == self.shape else view.reshape(self.shape)

    def adopt(self, array: np.ndarray) -> None:
        """Hold ``array`` itself as data, in its shape: weights that were read need not be copied."""
        self._memory["data"] = flat = array.reshape(-1)
        self._views["data"] = flat.reshape(array.shape)
        self.reshape(*array.shape)

    # What it looks like ----------------------------------------------------------------------------------------------

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


def _no_setter(part: str) -> AttributeError:
    return AttributeError(f"blob.{part} has no setter, as in pycaffe: write blob.{part}[...] = values")


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
