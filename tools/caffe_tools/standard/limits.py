"""How large a blob may be, and which number of a layer is to blame where one would be larger.

Source: Caffe src/caffe/blob.cpp (``Reshape``: "blob size exceeds INT_MAX").
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from caffe_tools.errors import NetError
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.message import Message

MOST_ELEMENTS = 2**31 - 1
"""Of a blob: Caffe counts them in an int."""
BYTES_OF_ELEMENT = 16
"""Its data and its diff, and as much again while it is made."""
LARGE, EXTREME = 64, 1e6
"""A number of a layer from here on may be why a blob is too large, why something cannot be computed."""
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def too_large(shape: Sequence[object]) -> str:
    """Why no blob has that shape; "" where one may. Symbolic dims count as 1."""
    count = math.prod(dim for dim in shape if isinstance(dim, int))
    if count > MOST_ELEMENTS:
        return f"{count:.4g} elements, a blob at most {MOST_ELEMENTS}"
    if count * BYTES_OF_ELEMENT > machine_memory():
        return f"{count:.4g} elements, this machine's memory at most {machine_memory() // BYTES_OF_ELEMENT:.4g}"
    return ""


@cache
def machine_memory() -> int:
    """In bytes: that of the machine, or of the container."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, MEMORY_LIMITS):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found)


def expect_size(spec: LayerSpec, what: str, shape: Sequence[object]) -> None:
    """NetError where ``what`` of the layer would be larger than a blob can be."""
    reason = too_large(shape)
    if reason:
        name, value = _largest(spec, LARGE)
        blame = f": {name} is {value:.10g}" if name else ""
        raise spec.error(f"{what} has {reason}{blame}", name.partition(".")[0])


@contextmanager
def naming_extremes(spec: LayerSpec) -> Iterator[None]:
    """Where numbers cannot be computed with and one of the layer's is beyond all reason, say that."""
    try:
        yield
    except NetError:
        raise
    except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
        name, value = _largest(spec, LARGE if isinstance(error, MemoryError) else EXTREME)
        if not name:
            raise
        raise spec.error(f"{name} is {value:.10g}, which is beyond all reason", name.partition(".")[0]) from error


def _largest(spec: LayerSpec, least: float) -> tuple[str, float]:
    """The layer's largest number, from ``least`` on: its name with those of the messages around it, and its value."""
    found = [(name, value) for name, value in _numbers(spec.message) if not abs(value) < least]
    return max(found, key=lambda named: math.inf if math.isnan(named[1]) else abs(named[1]), default=("", 0.0))


def _numbers(message: Message, way: str = "") -> Iterator[tuple[str, float]]:
    for name, value in message:
        if isinstance(value, Message):
            yield from _numbers(value, f"{way}{name}.")
        elif isinstance(value, (int, float)):
            yield f"{way}{name}", value
