"""Dtypes, and shapes whose dims are numbers or symbols: what can be told of them before a graph runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from caffe_tools.errors import GraphError
from caffe_tools.graph import ir

Dim = int | str
"""A number, or the name of a symbolic dim such as ``batch``."""


def shape_of(value: ir.Value) -> tuple[Dim, ...]:
    """The dims of ``value``: an int, or a str where the dim is symbolic."""
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ())


def dtype_of(value: ir.Value) -> np.dtype:
    """The dtype of ``value``, for numpy."""
    if value.dtype is None:
        raise GraphError(f"the dtype of {value.name!r} cannot be told")
    return value.dtype.numpy()


def all_known(dims: Sequence[Dim | None]) -> TypeGuard[Sequence[int]]:
    """Whether all dims are numbers."""
    return all(isinstance(dim, int) for dim in dims)


def resolve(source: Sequence[Dim], dims: list[Dim]) -> list[Dim]:
    """``dims`` with -1 replaced by what it stands for, as far as that can be told."""
    if -1 not in dims:
        return dims
    rest_source, rest_dims = list(source), [dim for dim in dims if dim != -1]
    for dim in [dim for dim in rest_dims if isinstance(dim, str)]:
        if dim not in rest_source:
            raise GraphError(f"cannot reshape {tuple(source)} to {tuple(dims)}: it has no dim {dim!r}")
        rest_source.remove(dim)
        rest_dims.remove(dim)
    static = math.prod(dim for dim in rest_source if isinstance(dim, int))
    left = [dim for dim in rest_source if isinstance(dim, str)]
    known = math.prod(dim for dim in rest_dims if isinstance(dim, int))
    if (not left and known and static % known) or (not known and static):
        raise GraphError(f"cannot reshape {tuple(source)} to {tuple(dims)}: the counts do not match")
    if not left:
        inferred: Dim = static // known if known else 0
    elif len(left) == 1 and static == known:
        inferred = left[0]
    else:
        inferred = "*".join(left) if static == known else f"{'*'.join(left)}*{static}/{known}"
    return [inferred if dim == -1 else dim for dim in dims]


def broadcast_dims(shapes: Sequence[Sequence[Dim]], dims: Sequence[Dim | None]) -> list[Dim | None]:
    """``dims`` with an unknown one replaced by the symbol that all inputs have there, apart from those with a 1."""
    result = list(dims)
    for back in range(1, len(dims) + 1):
        if dims[-back] is None:
            found = {shape[-back] for shape in shapes if back <= len(shape)} - {1}
            if len(found) == 1:
                result[-back] = found.pop()
    return result


def same_count(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Whether shapes ``a`` and ``b`` have as many elements, for every value of their symbolic dims."""
    symbols_a, symbols_b = (sorted(dim for dim in shape if isinstance(dim, str)) for shape in (a, b))
    numbers_a, numbers_b = (math.prod(dim for dim in shape if isinstance(dim, int)) for shape in (a, b))
    return symbols_a == symbols_b and numbers_a == numbers_b
