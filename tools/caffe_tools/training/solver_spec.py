"""What a solver's prototxt says: SolverParameter, typed, checked, and in today's form.

Source: Caffe src/caffe/proto/caffe.proto (SolverParameter), src/caffe/solver.cpp (``InitTrainNet``, ``InitTestNets``),
src/caffe/util/upgrade_proto.cpp (``UpgradeSolverType``, ``UpgradeSnapshotPrefixProperty``).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np

from caffe_tools import prototxt
from caffe_tools.errors import SolverError
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, OptionalEnum, Repeated, String, Submessage, Unread
from caffe_tools.prototxt.layer_spec import PHASES
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import NET

OLD_TYPES = {name.upper(): name for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")}
"""What the old ``solver_type`` calls a solver → its ``type``."""
TRAIN_NETS = ("net", "net_param", "train_net", "train_net_param")

NET_STATE = {"phase": OptionalEnum(*PHASES), "level": Int(), "stage": Repeated(String())}


class SolverParameter:
    """Caffe's message: the type of each attribute, and the field of the prototxt that it is read from."""

    # the nets
    net: Annotated[str | None, String()]
    net_param: Annotated[Any, Unread()]
    train_net: Annotated[str | None, String()]
    train_net_param: Annotated[Any, Unread()]
    test_net: Annotated[list[str], Repeated(String())]
    test_net_param: Annotated[list[Any], Repeated(Unread())]
    train_state: Annotated[fields.Values, Submessage(NET_STATE)]
    test_state: Annotated[list[fields.Values], Repeated(Submessage(NET_STATE))]
    weights: Annotated[list[str], Repeated(String())]
    # testing and showing
    test_iter: Annotated[list[int], Repeated(Int())]
    test_interval: Annotated[int, Int(0)]
    test_compute_loss: Annotated[bool, Bool(False)]
    test_initialization: Annotated[bool, Bool(True)]
    display: Annotated[int, Int(0)]
    average_loss: Annotated[int, Int(1)]
    debug_info: Annotated[bool, Bool(False)]
    # the learning rate
    max_iter: Annotated[int, Int(0)]
    base_lr: Annotated[float, Float()]
    lr_policy: Annotated[str, String("")]
    gamma: Annotated[float, Float(0.0)]
    power: Annotated[float, Float(0.0)]
    stepsize: Annotated[int, Int(0)]
    stepvalue: Annotated[list[int], Repeated(Int())]
    # the gradients
    iter_size: Annotated[int, Int(1)]
    clip_gradients: Annotated[float, Float(-1.0)]
    weight_decay: Annotated[float, Float(0.0)]
    regularization_type: Annotated[str, String("L2")]
    # the solver
    type: Annotated[str, String("SGD")]
    solver_type: Annotated[str | None, OptionalEnum(*OLD_TYPES)]
    momentum: Annotated[float, Float(0.0)]
    momentum2: Annotated[float, Float(0.999)]
    rms_decay: Annotated[float, Float(0.99)]
    delta: Annotated[float, Float(1e-8)]
    random_seed: Annotated[int, fields.Field("int64", -1)]
    # snapshots
    snapshot: Annotated[int, Int(0)]
    snapshot_prefix: Annotated[str, String()]
    snapshot_diff: Annotated[bool, Bool(False)]
    snapshot_format: Annotated[str, Enum("HDF5", "BINARYPROTO", default="BINARYPROTO")]
    snapshot_after_train: Annotated[bool, Bool(True)]
    # where and how Caffe runs; here it makes no difference
    solver_mode: Annotated[str, Enum("CPU", "GPU")]
    device_id: Annotated[int, Int(0)]
    layer_wise_reduce: Annotated[bool, Bool(True)]
    # the SSD fork
    eval_type: Annotated[str, String("classification")]
    ap_version: Annotated[str, String("Integral")]
    show_per_class_result: Annotated[bool, Bool(False)]
    given: frozenset[str]


SOLVER: dict[str, fields.Field] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(SolverParameter, include_extras=True).items()
    if name != "given"
}


@dataclass(frozen=True)
class NetSource:
    """A net that the solver names: its file or its message, and the phase, level and further stages it is built in."""

    net: Path | Message
    phase: str
    level: int
    stages: tuple[str, ...]


class SolverSpec(SolverParameter):
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
        self._check()
        self.snapshot_prefix = self._prefix()
        self.train = self._train()
        self.tests = self._tests()

    def error(self, field: str, text: str) -> SolverError:
        """A SolverError that says where the field stands; where it is not given, which solver lacks it."""
        position = self._message.position_of(field) if field in self._message else self._message.position
        place = position or (self._path if self._path.name else "the solver")
        return SolverError(f"{place}: {text}")

    def _type(self) -> str:
        if self.solver_type is not None:
            if "type" in self.given:
                raise self.error("solver_type", "it has both type and the old solver_type: give type alone")
            return OLD_TYPES[self.solver_type]
        return self.type

    def _check(self) -> None:
        for name, least in (("average_loss", 1), ("iter_size", 1), ("max_iter", 0), ("display", 0), ("snapshot", 0)):
            if getattr(self, name) < least:
                raise self.error(name, f"{name} is {getattr(self, name)}: give {least} or more")
        for index, count in enumerate(self.test_iter):
            if count < 1:
                raise self.error("test_iter", f"test_iter is {count} for test net {index}: give 1 or more")
        if self.base_lr is None:
            raise self.error("base_lr", "it has no base_lr: without a learning rate nothing learns")
        if (kind := self.regularization_type) not in ("L1", "L2"):
            raise self.error("regularization_type", f"regularization_type {kind!r} is neither L1 nor L2")
        if self.snapshot_format == "HDF5":
            raise self.error("snapshot_format", "snapshots in HDF5 are not covered: give snapshot_format: BINARYPROTO")

        for name, text in (("snapshot_diff", "snapshots hold no diffs"), ("debug_info", "nothing more is printed")):
            if getattr(self, name):
                warnings.warn(str(self.error(name, f"{name} changes nothing here: {text}")), stacklevel=3)

    def _prefix(self) -> str:
        if self.snapshot_prefix is None:
            return str(self._path.with_suffix("")) if self._path.name else "snapshot"
        if os.path.isdir(self.snapshot_prefix):
            return str(Path(self.snapshot_prefix) / (self._path.stem or "snapshot"))
        return self.snapshot_prefix

    def _train(self) -> NetSource:
        given = [name for name in TRAIN_NETS if name in self.given]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}" if given else "it names no net to train"
            raise self.error(given[-1] if given else "net", f"{found}: give one of {', '.join(TRAIN_NETS)}")
        return self._source(given[0], getattr(self, given[0]), "TRAIN", self.train_state)

    def _tests(self) -> list[NetSource]:
        named = [("test_net_param", net) for net in self.test_net_param] + [("test_net", net) for net in self.test_net]
        generic = [(name, getattr(self, name)) for name in ("net", "net_param") if name in self.given]
        count = len(self.test_iter)
        if count < len(named) or (count > len(named) and not generic):
            raise self.error("test_iter", f"test_iter is given {count} times for {len(named)} test nets: once for each")
        nets = named + generic * (count - len(named))
        if nets and (kind := self.eval_type) != "classification":
            raise self.error("eval_type", f"eval_type {kind!r} is not covered: tests show the means of the outputs")
        if nets and self.test_interval < 1:
            raise self.error("test_interval", f"test_interval is {self.test_interval}: to test, give 1 or more")
        if (given := len(self.test_state)) not in (0, count):
            raise self.error("test_state", f"test_state is given {given} times for {count} test nets")
        states = self.test_state or [fields.read(None, NET_STATE, "test_state")] * len(nets)
        return [self._source(name, net, "TEST", state) for (name, net), state in zip(nets, states, strict=True)]

    def _source(self, field: str, net: str | Message, phase: str, state: fields.Values) -> NetSource:
        """The net's own state counts over ``phase``, and the solver's over both; stages add up."""
        if not isinstance(net, (str, Message)):
            raise self.error(field, f"{field} is {net!r}, but takes a net in braces")
        source = self._net_file(field, net) if isinstance(net, str) else net
        message = source if isinstance(source, Message) else prototxt.load(source)
        own = fields.read(message, NET, "the net", ignore_unknown=True).state
        level = state.level if state.level is not None else own.level
        return NetSource(source, state.phase or own.phase or phase, level, tuple(state.stage))

    def _net_file(self, field: str, name: str) -> Path:
        """``name`` from the working directory, as in Caffe, or else beside the solver."""
        for path in (Path(name), self._path.parent / name):
            if path.is_file():
                return path
        where = f"{os.getcwd()} and {self._path.parent.resolve()}" if self._path.name else os.getcwd()
        raise self.error(field, f"{field} {name!r} is no file (looked for in {where})")


def read_solver(path: str | os.PathLike) -> SolverSpec:
    """The solver in a prototxt file. Raises PrototxtError, NetError or SolverError."""
    message = prototxt.load(path)
    if "layer" in message or "layers" in message:
        raise SolverError(f"{path} is a net (it has layers), not a solver: give the solver that names it")
    return SolverSpec(message, path)
