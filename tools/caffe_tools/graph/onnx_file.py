"""ONNX models to files, the weights written straight from the arrays that hold them.

A ModelProto would hold a copy of every weight, and serializing it one more. Here the model without its large tensors
is serialized, and each of them is appended in protobuf's wire format: a message field that occurs again is merged with
what came before, so every ONNX reader sees one graph. Beyond protobuf's limit of 2 GB the tensors go to a file beside
the model, as ONNX's external data.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from caffe_tools.binaryproto.wire import encoded_key, encoded_varint
from caffe_tools.errors import ExportError
from caffe_tools.files import MOST_OF_NAME, check_writable, is_special, whole_file

LARGE = 1024
"""Tensors of more bytes than this are not part of the skeleton."""
EXTERNAL_FROM = 2**31 - 2**20
"""Models of more bytes than this keep their large tensors in a file of their own."""
ALIGNMENT = 4096
"""External tensors start at multiples of this, so that they can be mapped into memory."""

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
"""Field numbers of onnx.proto."""


def skeleton(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model without its large tensors, and those by name."""
    stored = model.graph.initializers
    tensors = {name: value.const_value for name, value in stored.items()}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None and tensor.nbytes > LARGE}
    large = {name: stored.pop(name) for name in arrays}
    try:
        proto = ir.to_proto(model)
    finally:
        stored.update(large)
    kept = [info for info in proto.graph.value_info if info.name not in large]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto, arrays


def to_bytes(model: ir.Model) -> bytes:
    """The model as a file would hold it; for models below 2 GB."""
    return ir.to_proto(model).SerializeToString()


def save(model: ir.Model, path: str | os.PathLike) -> None:
    """Write the model to ``path`` (with ``path.data`` beside it where it is too large for one file).

    The files appear when they are complete. Raises ExportError where they cannot be written.
    """
    check_writable(path, ExportError)
    path = Path(path)
    if is_special(path):
        with whole_file(path, ExportError) as temporary:
            temporary.write_bytes(to_bytes(model))
        return
    proto, large = skeleton(model)
    external = proto.ByteSize() + sum(array.nbytes for array in large.values()) > EXTERNAL_FROM
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:MOST_OF_NAME]}.") as folder:
            temporary = Path(folder) / path.name
            if external:
                _write_external(proto, large, temporary)
                os.replace(temporary.with_name(f"{path.name}.data"), path.with_name(f"{path.name}.data"))
            else:
                _write_one_file(proto, large, temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from None


def _write_one_file(proto: onnx.ModelProto, large: Mapping[str, np.ndarray], path: Path) -> None:
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())
        for name, array in large.items():
            _append_tensor(file, name, array)


def _append_tensor(file: BinaryIO, name: str, array: np.ndarray) -> None:
    """ModelProto.graph { initializer { …, raw_data } }, the data as it lies in memory."""
    array = _little_endian(array)
    head = _tensor_head(name, array).SerializeToString()
    raw = encoded_key(TENSOR_RAW_DATA) + encoded_varint(array.nbytes)
    tensor_size = len(head) + len(raw) + array.nbytes
    tensor = encoded_key(GRAPH_INITIALIZER) + encoded_varint(tensor_size)
    file.write(encoded_key(MODEL_GRAPH) + encoded_varint(len(tensor) + tensor_size) + tensor + head + raw)
    file.write(array.data)


def _write_external(proto: onnx.ModelProto, large: Mapping[str, np.ndarray], path: Path) -> None:
    data = path.with_name(f"{path.name}.data")
    with open(data, "wb") as file:
        for name, array in large.items():
            array = _little_endian(array)
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            tensor = _tensor_head(name, array)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            proto.graph.initializer.append(tensor)
            file.write(array.data)
    path.write_bytes(proto.SerializeToString())


def _tensor_head(name: str, array: np.ndarray) -> onnx.TensorProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.TensorProto(name=name, data_type=dtype, dims=array.shape)


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
