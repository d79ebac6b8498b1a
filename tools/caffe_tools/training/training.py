"""Training a net with a solver: Caffe's loop of tests, iterations, updates and snapshots.

    training = Training("solver.prototxt")
    for event in training.run():
        print(event)

Source: Caffe src/caffe/solver.cpp (``Init``, ``Step``, ``Solve``, ``Test``).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from caffe_tools.errors import SolverError
from caffe_tools.net.net import Net
from caffe_tools.net.weights import Loaded, WeightsWarning
from caffe_tools.training import not_finite
from caffe_tools.training.engines import ENGINES
from caffe_tools.training.events import Evaluation, Event, Iteration, Output, Snapshotted
from caffe_tools.training.not_finite import NotFiniteError
from caffe_tools.training.run import Run
from caffe_tools.training.run_state import net_state, restore_net
from caffe_tools.training.snapshot import check_prefix, restore_snapshot, snapshot_path, write_snapshot
from caffe_tools.training.solver_spec import SolverSpec


class Training(Run):
    """A solver with its nets: pycaffe's solver (``net``, ``test_nets``, ``iteration``, ``step``), without Caffe.

    engine: "layers" runs the training net layer by layer, "onnx" as one exported graph; test nets run layer by layer.
    seed: of the fillers and Dropout, in the place of the solver's random_seed; where neither is given, 0.
    keep_going: where NaN or infinity appears, say so once and train on, as Caffe does.

    Raises SolverError, PrototxtError or NetError; while it runs NotFiniteError, a SolverError.
    """

    def __init__(
        self,
        solver: SolverSpec | str | os.PathLike,
        *,
        engine: str = "layers",
        allow_modules: Sequence[str] = (),
        seed: int | None = None,
        keep_going: bool = False,
    ) -> None:
        if engine not in ENGINES:
            raise SolverError(f"unknown engine {engine!r}: there are {', '.join(ENGINES)}")
        super().__init__(solver, allow_modules, seed)
        self._engine = ENGINES[engine](self.net)
        self._stop_requested = False
        self._is_watched, self._keep_going = True, keep_going
        self._written: Snapshotted | None = None

    def copy_from(self, path: str | os.PathLike) -> Loaded:
        """Start from the weights of a .caffemodel, where the layers' names agree; what became of them in the training
        net, as ``Net.copy_from`` says it."""
        loaded = self.net.copy_from(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeightsWarning)  # test nets share what the training net has
            for net in self.test_nets:
                net.copy_from(path)
        return loaded

    def snapshot(self) -> Path:
        """Write a snapshot; the path of its .solverstate."""
        return write_snapshot(self)

    def restore(self, path: str | os.PathLike) -> None:
        """Go on where a snapshot was taken."""
        restore_snapshot(self, path)

    def stop(self) -> None:
        """Let ``run`` end after this iteration, with a snapshot. May be called from a signal handler."""
        self._stop_requested = True

    # Running --------------------------------------------------------------------------------------------------------

    def run(self, until: int | None = None) -> Iterator[Event]:
        """Train up to iteration ``until`` (default: max_iter), with tests and snapshots as the solver says.

        Where NaN or infinity appears, the last state without is written, and NotFiniteError raised.
        """
        solver = self.solver
        if solver.snapshot or solver.snapshot_after_train:
            check_prefix(solver.snapshot_prefix)
        self._stop_requested, self._written = False, None
        try:
            yield from self._train(solver.max_iter if until is None else until)
        except NotFiniteError:
            wants_snapshot = (solver.snapshot or solver.snapshot_after_train) and self.iteration > 0
            if wants_snapshot and not snapshot_path(self).exists() and not_finite.state_is_finite(self.updater):
                yield self._snapshotted()
            raise

    def _train(self, until: int) -> Iterator[Event]:
        solver = self.solver
        while self.iteration < until and not self._stop_requested:
            if self._tests_now() and (self.iteration > 0 or solver.test_initialization):
                yield from self._test_all()
                if self._stop_requested:
                    break
            yield self.step()
            if solver.snapshot and self.iteration % solver.snapshot == 0:
                yield self._snapshotted()
        wants_snapshot = solver.snapshot_after_train or self._stop_requested
        if wants_snapshot and not self._is_written():
            yield self._snapshotted()
        if self._stop_requested:
            return
        if solver.display and self.iteration % solver.display == 0:
            loss = self._engine.forward()
            self._watch_loss(self.net, loss)
            smoothed = float(np.mean([*self.losses, loss][-solver.average_loss :]))
            yield Iteration(self.iteration, loss, smoothed, None, [])
        if self._tests_now():
            yield from self._test_all()

    def step(self) -> Iteration:
        """One iteration: forward and backward iter_size times, then an update."""
        solver, number = self.solver, self.iteration
        for item in self.updater.blobs:
            item.blob.diff[...] = 0
        total = 0.0
        for _ in range(solver.iter_size):
            total += self._engine.forward_backward()
            self._watch_loss(self.net, total)
        loss = total / solver.iter_size
        if self._is_watched and not all(not_finite.is_finite(item.blob.diff) for item in self.updater.blobs):
            self._meets(not_finite.in_backward(self.net))
        self.losses.append(loss)
        is_shown = solver.display and number % solver.display == 0
        outputs = _outputs(self.net) if is_shown else None
        rate = self.updater.apply()
        if self._is_watched and not not_finite.state_is_finite(self.updater):
            self._meets(not_finite.in_update(self.updater, float(rate)), number)
        return Iteration(number, loss, float(np.mean(self.losses)), float(rate), outputs)

    def _snapshotted(self) -> Snapshotted:
        self._written = Snapshotted(self.iteration, self.snapshot())
        return self._written

    def _is_written(self) -> bool:
        """Whether the last snapshot of this run is that of this iteration."""
        return self._written is not None and self._written.iteration == self.iteration

    # NaN and infinity -----------------------------------------------------------------------------------------------

    def _watch_loss(self, net: Net, loss: float, where: str = "") -> None:
        if self._is_watched and not math.isfinite(loss):
            self._meets(not_finite.in_forward(net), where=where)

    def _meets(self, place: not_finite.Place | None, iteration: int | None = None, where: str = "") -> None:
        """Stop the run there; or else say it, and look no more."""
        iteration = self.iteration if iteration is None else iteration
        layer, text = place or ("", "a gradient is not finite")
        text = f"iteration {iteration}{where}: {text}"
        if not self._keep_going:
            raise NotFiniteError(iteration, layer, text)
        self._is_watched = False
        warnings.warn(f"{text}; training goes on", stacklevel=2)

    # Testing --------------------------------------------------------------------------------------------------------

    def _tests_now(self) -> bool:
        return bool(self.solver.test_interval) and self.iteration % self.solver.test_interval == 0

    def _test_all(self) -> Iterator[Evaluation]:
        for number in range(len(self.test_nets)):
            result = self.test(number)
            if result is None:
                return
            yield result

    def test(self, number: int = 0) -> Evaluation | None:
        """Run test net ``number`` on test_iter batches; None where ``stop`` is called meanwhile.

        A test that is stopped leaves the net's data where it was, so that it can be made again from its start.
        """
        net, count = self.test_nets[number], self.solver.test_iter[number]
        before = net_state(net, "test")
        total: list[Output] = []
        loss = 0.0
        for _ in range(count):
            if self._stop_requested:
                restore_net(net, "test", before)
                return None
            net.forward()
            loss += net.total_loss
            outputs = _outputs(net)
            finite = all(not_finite.is_finite(item.values) for item in outputs)
            self._watch_loss(net, loss if finite else math.nan, f", test net #{number}")
            total = [_added(a, b) for a, b in zip(total, outputs, strict=True)] if total else outputs
        means = [Output(item.name, item.values / np.float32(count), item.loss_weight) for item in total]
        return Evaluation(self.iteration, number, means, loss / count if self.solver.test_compute_loss else None)


def _outputs(net: Net) -> list[Output]:
    weights = {
        top: weight for placed in net.placed for top, weight in zip(placed.spec.tops, placed.loss_weights, strict=True)
    }
    return [Output(name, net.blobs[name].data.copy(), weights[name]) for name in net.outputs]


def _added(a: Output, b: Output) -> Output:
    if a.values.shape != b.values.shape:
        raise SolverError(
            f"the test output {a.name!r} has the shape {a.values.shape} in one batch and {b.values.shape} in another,"
            " so it has no mean: end it in a Silence layer"
        )
    return Output(a.name, a.values + b.values, a.loss_weight)
