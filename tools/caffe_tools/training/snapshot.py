"""Snapshots of a training run: written so that a kill at any moment leaves none or a whole one, and restored.

Source: Caffe src/caffe/solver.cpp (``Snapshot``, ``SnapshotFilename``), src/caffe/solvers/sgd_solver.cpp
(``RestoreSolverStateFromBinaryProto``).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from caffe_tools.binaryproto.solverstate import SolverState, read_solver_state, write_solver_state
from caffe_tools.errors import SolverError
from caffe_tools.files import load_arrays, save_arrays
from caffe_tools.training.run import Run
from caffe_tools.training.run_state import digest, forgetful_data_layers, net_state, restore_net


def check_prefix(prefix: str) -> None:
    """SolverError where no snapshot can be written, so that a run does not end with it."""
    folder = Path(prefix).parent
    if not folder.is_dir():
        raise SolverError(f"snapshot_prefix {prefix!r}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise SolverError(f"snapshot_prefix {prefix!r}: the folder {folder} cannot be written")


def snapshot_path(run: Run) -> Path:
    """The .solverstate of a snapshot of this iteration."""
    return Path(f"{run.solver.snapshot_prefix}_iter_{run.iteration}.solverstate")


def write_snapshot(run: Run) -> Path:
    """Write PREFIX_iter_N.caffemodel, .runstate.npz and .solverstate; the path of the last, which resumes the run."""
    updater = run.updater
    state = snapshot_path(run)
    check_prefix(str(state))
    weights = state.with_suffix(".caffemodel")
    # it is there only while the two others are those of the same moment: it goes first and comes last
    state.unlink(missing_ok=True)
    run.net.save(weights)
    arrays = {"weights": np.array(digest(weights)), "losses": np.array(run.losses, np.float64)}
    for name, net in run.named_nets():
        arrays |= net_state(net, name)
    save_arrays(run_state_path(state), arrays)
    write_solver_state(state, SolverState(updater.iteration, str(weights), updater.step, updater.history))
    return state


def restore_snapshot(run: Run, path: str | os.PathLike) -> None:
    """Put the run where it was when the .solverstate was written, by this program or by Caffe.

    The weights are those that it names, from the working directory or else beside it. Raises SolverError where it is
    that of another net or solver, CaffemodelError where a file cannot be read.
    """
    state = read_solver_state(path)
    updater = run.updater
    _check_history(state, run, path)
    weights = _weights(state, Path(path))
    if weights is not None:
        run.net.copy_from(weights)
    for mine, stored in zip(updater.history, state.history, strict=True):
        mine[...] = stored.reshape(mine.shape)
    updater.iteration, updater.step = state.iteration, state.step
    _restore_run_state(run, run_state_path(Path(path)), weights)


def run_state_path(state: Path) -> Path:
    """Where the rest of the run's state stands beside a .solverstate."""
    return state.with_suffix(".runstate.npz")


def _check_history(state: SolverState, run: Run, path: str | os.PathLike) -> None:
    updater, solver = run.updater, run.solver
    if len(state.history) != len(updater.history):
        raise SolverError(
            f"{path} holds {len(state.history)} history blobs, but {solver.type} needs {len(updater.history)} for the"
            f" {len(updater.blobs)} learnable blobs of this net: the state of another net or solver type"
        )
    for index, (mine, stored) in enumerate(zip(updater.history, state.history, strict=True)):
        if mine.size != stored.size:
            name = updater.blobs[index % len(updater.blobs)].name
            raise SolverError(
                f"{path}: history blob {index} has the shape {stored.shape}, but {name} has {mine.shape}:"
                " the state of another net"
            )


def _weights(state: SolverState, path: Path) -> Path | None:
    if not state.learned_net:
        return None
    named = Path(state.learned_net)
    for found in (named, path.parent / named.name):
        if found.is_file():
            return found
    raise SolverError(f"{path} goes with the weights {named}, which are neither there nor in {path.parent.resolve()}")


def _restore_run_state(run: Run, path: Path, weights: Path | None) -> None:
    arrays = load_arrays(path) if path.is_file() else {}
    anew = "data and random numbers start anew"
    if not arrays:
        warnings.warn(f"there is no {path}: {anew}", stacklevel=2)
    elif weights is not None and str(arrays.get("weights")) != digest(weights):
        warnings.warn(f"{path} belongs to other weights than {weights}: {anew}", stacklevel=2)
        arrays = {}
    run.losses.extend(arrays.get("losses", np.zeros(0)).tolist())
    for name, net in run.named_nets():
        restore_net(net, name, arrays)
        for layer in forgetful_data_layers(net) if arrays else ():
            warnings.warn(f"{layer.spec.place} has no get_state() and set_state(): its data starts anew", stacklevel=2)
