"""A solver's memory: .solverstate files, which Caffe writes and reads too.

The field numbers are those of Caffe's caffe.proto (SolverState).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from caffe_tools.binaryproto.caffemodel import MAX_FILE_BYTES, encoded_blob, read_blob_at
from caffe_tools.binaryproto.wire import BYTES, VARINT, WireFile, encoded_bytes, encoded_integer
from caffe_tools.errors import SolverError
from caffe_tools.files import whole_file

STATE_ITER, STATE_LEARNED_NET, STATE_HISTORY, STATE_CURRENT_STEP = 1, 2, 3, 4


@dataclass
class SolverState:
    """iteration: how many updates were made. learned_net: the .caffemodel of the same moment, "" where there is none.
    step: how often the learning rate was lowered. history: what the solver remembers, float32, in Caffe's order."""

    iteration: int = 0
    learned_net: str = ""
    step: int = 0
    history: list[np.ndarray] = field(default_factory=list)


def read_solver_state(path: str | os.PathLike) -> SolverState:
    """The state in a file. CaffemodelError for a missing, foreign, truncated or damaged file."""
    file = WireFile(path, "a .solverstate")
    state = SolverState()
    for item in file.items(0, file.size, "the solver state"):
        if item.number == STATE_HISTORY and item.wire_type == BYTES:
            what = f"history blob {len(state.history)}"
            state.history.append(read_blob_at(file, item.start, item.end, what))
        elif item.number == STATE_LEARNED_NET and item.wire_type == BYTES:
            state.learned_net = file.text(item)
        elif item.number == STATE_ITER and item.wire_type == VARINT:
            state.iteration = item.value
        elif item.number == STATE_CURRENT_STEP and item.wire_type == VARINT:
            state.step = item.value
        elif item.number <= STATE_CURRENT_STEP:
            file.fail("another kind of protobuf file (a .caffemodel?), where a .solverstate is expected")
    if state.iteration < 0 or state.step < 0:
        file.fail(f"iteration {state.iteration} and step {state.step} must be 0 or more: a damaged .solverstate")
    return state


def write_solver_state(path: str | os.PathLike, state: SolverState) -> None:
    """Write a .solverstate that Caffe reads; it appears complete or not at all.

    Raises SolverError beyond Caffe's limit of 2 GB, CaffeToolsError where the file cannot be written.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(encoded_integer(STATE_ITER, state.iteration))
        file.write(encoded_bytes(STATE_LEARNED_NET, os.fsencode(state.learned_net)))
        for array in state.history:
            for part in encoded_blob(STATE_HISTORY, array):
                file.write(part)
        file.write(encoded_integer(STATE_CURRENT_STEP, state.step))
        if file.tell() > MAX_FILE_BYTES:
            raise SolverError(f"{path}: the solver's history exceeds 2 GB, which Caffe cannot read")
