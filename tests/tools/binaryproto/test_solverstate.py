"""`.solverstate` files, written and read, against protobuf with the fields of caffe.proto."""

from __future__ import annotations

import numpy as np
import pytest
from test_caffemodel import SCHEMA, descriptor_pb2, descriptor_pool, message_factory

from caffe_tools.binaryproto import caffemodel
from caffe_tools.binaryproto.solverstate import SolverState, read_solver_state, write_solver_state
from caffe_tools.errors import CaffemodelError, CaffeToolsError

STATE = {
    "iter": (1, "int32", False),
    "learned_net": (2, "string", False),
    "history": (3, "Blob", True),
    "current_step": (4, "int32", False),
}


def state_class():
    """protobuf's class for Caffe's SolverState."""
    file = descriptor_pb2.FileDescriptorProto(name="state.proto", package="state", syntax="proto2")
    for message_name in ("Shape", "Blob", "State"):
        message = file.message_type.add(name=message_name)
        for name, (number, kind, repeated) in (STATE if message_name == "State" else SCHEMA[message_name]).items():
            field = message.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, f".state.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
                field.options.packed = repeated
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("state.State"))


HISTORY = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5], np.float32)]


def test_caffe_reads_what_is_written(tmp_path):
    path = tmp_path / "run_iter_300.solverstate"
    write_solver_state(path, SolverState(300, "run_iter_300.caffemodel", 2, HISTORY))
    state = state_class().FromString(path.read_bytes())
    assert (state.iter, state.learned_net, state.current_step) == (300, "run_iter_300.caffemodel", 2)
    assert [list(blob.shape.dim) for blob in state.history] == [[2, 3], [1]]
    assert [list(blob.data) for blob in state.history] == [[0, 1, 2, 3, 4, 5], [1.5]]


def test_what_caffe_writes_is_read(tmp_path):
    state = state_class()(iter=7, learned_net="a/b.caffemodel")
    blob = state.history.add()
    blob.shape.dim.extend([2, 2])
    blob.data.extend([1, 2, 3, 4])
    path = tmp_path / "x.solverstate"
    path.write_bytes(state.SerializeToString())
    found = read_solver_state(path)
    assert (found.iteration, found.learned_net, found.step) == (7, "a/b.caffemodel", 0)
    assert [array.tolist() for array in found.history] == [[[1, 2], [3, 4]]]


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    path = tmp_path / "x.solverstate"
    history = [np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), np.zeros((2, 0), np.float32)]
    write_solver_state(path, SolverState(0, "", 0, history))
    found = read_solver_state(path)
    assert (found.iteration, found.learned_net, found.step) == (0, "", 0)
    for mine, theirs in zip(history, found.history, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_caffemodel_is_no_solverstate(tmp_path):
    path = tmp_path / "x.caffemodel"
    caffemodel.write(path, [("ip", "InnerProduct", HISTORY)], name="net")
    with pytest.raises(CaffemodelError, match="a .caffemodel.., where a .solverstate is expected"):
        read_solver_state(path)


def test_a_truncated_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.solverstate"
    write_solver_state(path, SolverState(3, "x.caffemodel", 1, HISTORY))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CaffemodelError, match="x.solverstate: "):
        read_solver_state(path)


def test_a_missing_file_and_a_missing_folder_are_errors_of_one_line(tmp_path):
    with pytest.raises(CaffemodelError, match="No such file"):
        read_solver_state(tmp_path / "gone.solverstate")
    with pytest.raises(CaffeToolsError, match="cannot write"):
        write_solver_state(tmp_path / "gone" / "x.solverstate", SolverState())
