"""What a solver's prototxt says: SolverParameter, typed, checked, and in today's form.

Source: Caffe src/caffe/proto/caffe.proto (SolverParameter), src/caffe/solver.cpp (``InitTrainNet``, ``InitTestNets``),
src/caffe/util/upgrade_proto.cpp (``UpgradeSolverType``, ``UpgradeSnapshotPrefixProperty``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from caffe_tools import prototxt
from caffe_tools.errors import SolverError
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import (
    Bool,
    Enum,
    Field,
    Float,
    Int,
    OptionalEnum,
    Repeated,
    String,
    Submessage,
    Unread,
)
from caffe_tools.prototxt.layer_spec import PHASES
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import NET
from caffe_tools.training.learning_rate import POLICIES

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
OLD_TYPES = dict(zip(("SGD", "NESTEROV", "ADAGRAD", "RMSPROP", "ADADELTA", "ADAM"), TYPES, strict=True))
TRAIN_NETS = ("net", "net_param", "train_net", "train_net_param")

NET_STATE = {"phase": OptionalEnum(*PHASES), "level": Int(), "stage": Repeated(String())}
SOLVER: dict[str, Field] = {
    # the nets
    "net": String(),
    "net_param": Unread(),
    "train_net": String(),
    "train_net_param": Unread(),
    "test_net": Repeated(String()),
    "test_net_param": Repeated(Unread()),
    "train_state": Submessage(NET_STATE),
    "test_state": Repeated(Submessage(NET_STATE)),
    "weights": Repeated(String()),
    # testing and showing
    "test_iter": Repeated(Int()),
    "test_interval": Int(0),
    "test_compute_loss": Bool(False),
    "test_initialization": Bool(True),
    "display": Int(0),
    "average_loss": Int(1),
    "debug_info": Bool(False),
    # the learning rate
    "max_iter": Int(0),
    "base_lr": Float(),
    "lr_policy": String(),
    "gamma": Float(0.0),
    "power": Float(0.0),
    "stepsize": Int(0),
    "stepvalue": Repeated(Int()),
    # the gradients
    "iter_size": Int(1),
    "clip_gradients": Float(-1.0),
    "weight_decay": Float(0.0),
    "regularization_type": String("L2"),
    # the solver
    "type": String("SGD"),
    "solver_type": OptionalEnum(*OLD_TYPES),
    "momentum": Float(0.0),
    "momentum2": Float(0.999),
    "rms_decay": Float(0.99),
    "delta": Float(1e-8),
    "random_seed": Field("int64", -1),
    # snapshots
    "snapshot": Int(0),
    "snapshot_prefix": String(),
    "snapshot_diff": Bool(False),
    "snapshot_format": Enum("HDF5", "BINARYPROTO", default="BINARYPROTO"),
    "snapshot_after_train": Bool(True),
    # where and how Caffe runs; here it makes no difference
    "solver_mode": Enum("CPU", "GPU"),
    "device_id": Int(0),
    "layer_wise_reduce": Bool(True),
    # the SSD fork
    "eval_type": String("classification"),
    "ap_version": String("Integral"),
    "show_per_class_result": Bool(False),
}


@dataclass(frozen=True)
class NetSource:
    """A net that the solver names: its file or its message, and the phase, level and further stages it is built in."""

    net: Path | Message
    phase: str
    level: int
    stages: tuple[str, ...]


class SolverSpec:
    """A checked SolverParameter: every field is an attribute, with Caffe's default where the prototxt is silent.

    type: the solver's name, whichever of ``type`` and the old ``solver_type`` gave it.
    snapshot_prefix: never None: without one it is the solver's own path, and in a folder the solver's name.
    train, tests: the nets.

    Raises SolverError, with the place of the field.
    """

    def __init__(self, message: Message, path: str | os.PathLike = "") -> None:
        self._message, self._path = message, Path(path)
        values = fields.read(message, SOLVER, "the solver")
        self.__dict__.update(values.__dict__)
        for name, field in SOLVER.items():
            if field.kind == "float" and getattr(self, name) is not None:
                # as protobuf stores it: 0.1 is 0.100000001490116 to Caffe
                setattr(self, name, float(np.float32(getattr(self, name))))
        self.type = self._type()
        self._check_numbers()
        self._check_policy()
        self._check_momentum()
        self._check_what_is_not_covered()
        self.snapshot_prefix = self._prefix()
        self.train = self._train()
        self.tests = self._tests()

    def _fail(self, field: str, text: str) -> NoReturn:
        position = self._message.position_of(field) if field in self._message else self._message.position
        place = position or (self._path if self._path.name else "the solver")
        raise SolverError(f"{place}: {text}")

    def _type(self) -> str:
        if self.solver_type is not None:
            if "type" in self.given:
                self._fail("solver_type", "it has both type and the old solver_type: give type alone")
            return OLD_TYPES[self.solver_type]
        if self.type not in TYPES:
            self._fail("type", f"unknown solver type {self.type!r}: there are {', '.join(TYPES)}")
        return self.type

    # Checks ---------------------------------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        for name, least in (("average_loss", 1), ("iter_size", 1), ("max_iter", 0), ("display", 0), ("snapshot", 0)):
            if getattr(self, name) < least:
                self._fail(name, f"{name} is {getattr(self, name)}: give {least} or more")
        for index, count in enumerate(self.test_iter):
            if count < 1:
                self._fail("test_iter", f"test_iter is {count} for test net {index}: give 1 or more")
        if self.regularization_type not in ("L1", "L2"):
            self._fail("regularization_type", f"regularization_type {self.regularization_type!r} is neither L1 nor L2")

    def _check_policy(self) -> None:
        if self.base_lr is None:
            self._fail("base_lr", "it has no base_lr: without a learning rate nothing learns")
        if self.lr_policy not in POLICIES:
            found = f"unknown lr_policy {self.lr_policy!r}" if self.lr_policy else "it has no lr_policy"
            self._fail("lr_policy", f"{found}: there are {', '.join(POLICIES)}")
        if self.lr_policy in ("step", "sigmoid") and self.stepsize < 1:
            self._fail("stepsize", f"lr_policy {self.lr_policy!r} needs a stepsize of 1 or more")
        if self.lr_policy not in ("fixed", "poly") and self.gamma < 0:
            self._fail("gamma", f"gamma is {self.gamma:g}: lr_policy {self.lr_policy!r} needs 0 or more")
        if self.lr_policy == "poly" and self.max_iter < 1:
            self._fail("max_iter", "lr_policy 'poly' falls to 0 at max_iter: give 1 or more")

    def _check_momentum(self) -> None:
        if self.type in ("AdaGrad", "RMSProp") and self.momentum:
            self._fail("momentum", f"{self.type} has no momentum, but momentum is {self.momentum:g}: take it out")
        if self.type == "RMSProp" and not 0 <= self.rms_decay < 1:
            self._fail("rms_decay", f"rms_decay is {self.rms_decay:g}: give 0 or more, below 1")
        if self.type == "Adam":
            for name in ("momentum", "momentum2"):
                if not 0 <= getattr(self, name) < 1:
                    self._fail(name, f"{name} is {getattr(self, name):g}: Adam needs 0 or more, below 1")

    def _check_what_is_not_covered(self) -> None:
        if self.snapshot_format == "HDF5":
            self._fail("snapshot_format", "snapshots in HDF5 are not covered: give snapshot_format: BINARYPROTO")
        if self.eval_type != "classification":
            self._fail("eval_type", f"eval_type {self.eval_type!r} is not covered: tests show the means of the outputs")

    # Where snapshots go ---------------------------------------------------------------------------------------------

    def _prefix(self) -> str:
        if self.snapshot_prefix is None:
            return str(self._path.with_suffix("")) if self._path.name else "snapshot"
        if os.path.isdir(self.snapshot_prefix):
            return str(Path(self.snapshot_prefix) / (self._path.stem or "snapshot"))
        return self.snapshot_prefix

    # Nets -----------------------------------------------------------------------------------------------------------

    def _train(self) -> NetSource:
        given = [name for name in TRAIN_NETS if name in self.given]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}" if given else "it names no net to train"
            self._fail(given[-1] if given else "net", f"{found}: give one of {', '.join(TRAIN_NETS)}")
        return self._source(given[0], getattr(self, given[0]), "TRAIN", self.train_state)

    def _tests(self) -> list[NetSource]:
        named = [("test_net_param", net) for net in self.test_net_param] + [("test_net", net) for net in self.test_net]
        generic = next(((name, getattr(self, name)) for name in ("net", "net_param") if name in self.given), None)
        wanted = len(self.test_iter)
        if wanted < len(named) or (wanted > len(named) and generic is None):
            self._fail("test_iter", f"test_iter is given {wanted} times for {len(named)} test nets: once for each")
        nets = named + [generic] * (wanted - len(named))
        if nets and self.test_interval < 1:
            self._fail("test_interval", f"test_interval is {self.test_interval}: to test, give 1 or more")
        if self.test_state and len(self.test_state) != len(nets):
            self._fail("test_state", f"test_state is given {len(self.test_state)} times for {len(nets)} test nets")
        states = self.test_state or [fields.read(None, NET_STATE, "test_state")] * len(nets)
        return [self._source(name, net, "TEST", state) for (name, net), state in zip(nets, states, strict=True)]

    def _source(self, field: str, net: str | Message, phase: str, state: fields.Values) -> NetSource:
        """The net's own state counts over ``phase``, and the solver's over both; stages add up."""
        if isinstance(net, str):
            net = self._net_file(field, net)
        elif not isinstance(net, Message):
            self._fail(field, f"{field} is {net!r}, but takes a net in braces")
        message = net if isinstance(net, Message) else prototxt.load(net)
        own = fields.read(message, NET, "the net", ignore_unknown=True).state
        level = state.level if state.level is not None else own.level
        return NetSource(net, state.phase or own.phase or phase, level, tuple(state.stage))

    def _net_file(self, field: str, name: str) -> Path:
        """``name`` from the working directory, as in Caffe, or else beside the solver."""
        for path in (Path(name), self._path.parent / name):
            if path.is_file():
                return path
        where = f"{os.getcwd()} and {self._path.parent.resolve()}" if self._path.name else os.getcwd()
        self._fail(field, f"{field} {name!r} is no file (looked for in {where})")


def read_solver(path: str | os.PathLike) -> SolverSpec:
    """The solver in a prototxt file. Raises PrototxtError, NetError or SolverError."""
    message = prototxt.load(path)
    if "layer" in message or "layers" in message:
        raise SolverError(f"{path} is a net (it has layers), not a solver: give the solver that names it")
    return SolverSpec(message, path)
