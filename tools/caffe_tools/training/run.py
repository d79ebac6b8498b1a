"""What a training run is: a solver, the nets that it trains and tests, and how far it has come.

Source: Caffe src/caffe/solver.cpp (``Init``, ``InitTrainNet``, ``InitTestNets``).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

from caffe_tools.errors import SolverError
from caffe_tools.net.net import Net
from caffe_tools.training.solver_spec import NetSource, SolverSpec, read_solver
from caffe_tools.training.update import Updater, check_update


class Run:
    """A solver (``solver``) and its nets (``net``, and ``test_nets``, which share its learnable blobs).

    updater: the learnable blobs, and of the run the iteration, the step of the learning rate and the solver's history.
    losses: the last ones, as many as ``average_loss`` counts.
    """

    def __init__(self, solver: SolverSpec | str | os.PathLike, allow_modules: Sequence[str], seed: int | None) -> None:
        self.solver = solver if isinstance(solver, SolverSpec) else read_solver(solver)
        check_update(self.solver)  # before the nets, which take their time
        seed = max(self.solver.random_seed, 0) if seed is None else seed
        self.net, *self.test_nets = (
            _net_of(source, allow_modules, seed + number)
            for number, source in enumerate((self.solver.train, *self.solver.tests))
        )
        if not self.net.has_loss:
            raise SolverError(f"the training net {self.net.name!r} has no loss: give a layer a loss_weight")
        for net in self.test_nets:
            net.share_with(self.net)
        self.updater = Updater(self.solver, self.net)
        self.losses: deque[float] = deque(maxlen=self.solver.average_loss)

    @property
    def iteration(self) -> int:
        """How many updates have been made."""
        return self.updater.iteration

    def named_nets(self) -> Iterator[tuple[str, Net]]:
        """The nets, as snapshots call them."""
        yield "train", self.net
        for number, net in enumerate(self.test_nets):
            yield f"test{number}", net


def _net_of(source: NetSource, allow_modules: Sequence[str], seed: int) -> Net:
    return Net(source.net, source.phase, source.level, source.stages, allow_modules=tuple(allow_modules), seed=seed)
