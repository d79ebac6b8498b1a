"""How work is cut into blocks, which threads do them, and the memory that they work in: the same for every layer.

Scores are seen as outer x C x inner (see targets.py). A block is some rows of the outer dims and some columns of the
inner ones, with all C channels. Both engines do one block at a time, in a function of one block.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from caffe_layers.contract import ParameterError

BLOCK = 1 << 16
"""Elements of a block, at least: for fewer, calls cost more than what they do."""
LARGEST, LARGEST_ALONE, LARGEST_COMPILED = 8, 2, 16
"""Times BLOCK: at most. Several threads hand Python's lock to and fro between calls, so they want long ones; for one
thread, what is computed from a block is to stay in the cache. Compiled code does its own work in smaller steps."""
PART = 4
"""All threads' blocks together are at most one in so many of the scores, or of as many as they keep arrays for."""
RUN = 1 << 14
"""Elements next to each other in memory that a block is to have, where there are so many: shorter runs cost twice."""


def threads():
    """How many threads may work: CAFFE_LAYERS_THREADS, else the cores that this process may use."""
    text = os.environ.get("CAFFE_LAYERS_THREADS")
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.strip().isdigit() or int(text) < 1:
        raise ParameterError(f"CAFFE_LAYERS_THREADS is '{text}', but must be an integer, 1 or more")
    return int(text)


class Block(namedtuple("Block", "rows columns")):
    """The slices ``rows`` of the outer dims and ``columns`` of the inner ones."""

    def of(self, array):
        """This block's view of an array of outer x C x inner, or of None."""
        return None if array is None else array[self.rows, :, self.columns]

    def of_positions(self, array):
        """This block's view of an array of outer x inner, or of None."""
        return None if array is None else array[self.rows, self.columns]


class Whole(Block):
    """All rows and columns: small calls are spared the views."""

    def of(self, array):
        return array

    def of_positions(self, array):
        return array


def flat_index(block, places):
    """(array, index) of the places of a flat block, which may be a part of a larger array."""
    if block.flags.c_contiguous:
        return block.reshape(-1), places
    return block, np.unravel_index(places, block.shape)


def cut(layout, size):
    """The blocks of about ``size`` elements that cover the layout, in the order of memory."""
    columns = max(1, min(layout.inner, size // layout.channels))
    rows = max(1, size // (layout.channels * columns))
    return [
        Block(slice(row, min(row + rows, layout.outer)), slice(column, min(column + columns, layout.inner)))
        for row in range(0, layout.outer, rows)
        for column in range(0, layout.inner, columns)
    ]


def _block_size(layout, elements, number, arrays, compiled):
    """The elements of a block where ``number`` threads work."""
    if compiled:
        return min(max(BLOCK, elements // number), LARGEST_COMPILED * BLOCK)
    largest = LARGEST if number > 1 else LARGEST_ALONE
    size = min(max(BLOCK, elements // (PART * arrays * number)), largest * BLOCK)
    if layout.inner == 1:
        return size
    return max(size, min(RUN * layout.channels, LARGEST * BLOCK, 4 * size))


class Workspace:
    """Memory for what is computed on the way, kept from block to block and from call to call; one for each thread."""

    def __init__(self):
        self._arrays = {}
        self._of_others = []  # without itself, so that it is freed at once when it is no longer needed

    def array(self, name, shape, dtype):
        """An array of that shape and dtype, with anything in it: the last one of that name is no more."""
        size = math.prod(shape)
        flat = self._arrays.get((name, dtype))
        if flat is None or flat.size < size:
            flat = self._arrays[name, dtype] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def of_thread(self, number):
        if number == 0:
            return self
        while len(self._of_others) < number:
            self._of_others.append(Workspace())
        return self._of_others[number - 1]


def run(layout, workspace, work, arrays=1, compiled=False):
    """The results of ``work(block, workspace)`` for all blocks, in their order, whichever threads do them.

    ``arrays`` says how many arrays as large as the block the work needs beside what it is given, and ``compiled`` that
    it is mostly compiled code. Where blocks raise errors, the first one's is raised.
    """
    elements = layout.outer * layout.channels * layout.inner
    if elements <= BLOCK:
        return [work(layout.whole, workspace)] if elements else []
    number = threads()
    blocks = cut(layout, _block_size(layout, elements, number, arrays, compiled))
    number = min(number, len(blocks))
    if number == 1:
        return [work(block, workspace) for block in blocks]
    turns = itertools.count()  # next() is one step for Python's lock, so no turn is taken twice
    results: list = [None] * len(blocks)
    errors: dict = {}

    def take_turns(own_workspace):
        with np.errstate(all="ignore"):  # each thread has a state of its own
            for turn in iter(lambda: next(turns), None):
                if turn >= len(blocks) or errors:
                    return
                try:
                    results[turn] = work(blocks[turn], own_workspace)
                except Exception as error:
                    errors[turn] = error

    workspaces = [workspace.of_thread(index) for index in range(number)]
    others = [_pool(number - 1).submit(take_turns, own) for own in workspaces[1:]]
    take_turns(workspaces[0])
    wait(others)
    if errors:
        raise errors[min(errors)]
    return results


_pools: dict = {}


def _pool(number):
    """The helping threads, kept from call to call."""
    # A fork has no threads but its own, so it needs a pool of its own.
    key = os.getpid(), number
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(number, "caffe_layers")
    return _pools[key]
