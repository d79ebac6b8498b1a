"""Weights: .caffemodel and .binaryproto files to arrays and back.

A net is a NetParameter, a .binaryproto a BlobProto; the field numbers are those of Caffe's caffe.proto.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import numpy as np

from caffe_tools.binaryproto import wire
from caffe_tools.binaryproto.wire import BYTES, FIXED32, FIXED64, VARINT, WireFile
from caffe_tools.errors import CaffemodelError
from caffe_tools.files import whole_file

NET_NAME, NET_LAYERS_V1, NET_LAYER = 1, 2, 100
LAYER_NAME, LAYER_TYPE, LAYER_BLOBS = 1, 2, 7
V1_V0_LAYER, V1_NAME, V1_BLOBS = 1, 4, 6
V0_NAME, V0_BLOBS = 1, 50
BLOB_LEGACY_DIMS, BLOB_DATA, BLOB_SHAPE, BLOB_DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
BLOB_RAW_TYPE, BLOB_RAW_DATA = 10, 12
RAW_TYPES = ("<f8", "<f4", "<f2", "<i4", "<u4")
"""What ``raw_data`` holds, by its type's number."""
SHAPE_DIM = 1

MAX_AXES = 32  # Caffe's kMaxBlobAxes
MAX_DIM = 2**31 - 1  # Blob::Reshape's INT_MAX
MAX_FILE_BYTES = 2**31 - 1  # Caffe's kProtoReadBytesLimit


def read(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """The blobs of every layer that has some, as new float32 arrays: {layer name: blobs} in the order of the file.

    Of two layers with one name the later wins, as in Caffe's CopyTrainedLayersFrom (net.cpp). A shape in the old
    num/channels/height/width form has four axes and precedes a ``shape``; ``double_data`` precedes ``data``
    (Blob::FromProto, blob.cpp), and ``raw_data`` with its type, in which NVIDIA's Caffe and OpenCV's shrinkCaffeModel
    write half precision, both. CaffemodelError for a missing, foreign, truncated or damaged file and for a blob
    whose shape does not fit its data. Time and memory are linear in the size of the file.
    """
    file = WireFile(path, "a .caffemodel")
    blobs: dict[str, list[np.ndarray]] = {}
    layer_count = 0
    for item in file.items(0, file.size, "the net"):
        if item.number == NET_NAME and item.wire_type != BYTES:
            file.fail("another kind of protobuf file (ONNX?), where a .caffemodel is expected")
        if item.wire_type != BYTES or item.number not in (NET_LAYER, NET_LAYERS_V1):
            continue
        name, spans = _find_blobs(file, item, f"layer {layer_count}")
        layer_count += 1
        if spans:
            what = f"layer {_quoted(name)}"
            blobs[name] = [read_blob_at(file, *span, f"{what}, blob {i}") for i, span in enumerate(spans)]
    if not layer_count:
        file.fail("no layer found: not a .caffemodel, or one without layers")
    return blobs


def read_blob(path: str | os.PathLike) -> np.ndarray:
    """The blob of a .binaryproto (a mean image, InfogainLoss's matrix) as float32; CaffemodelError as in ``read``."""
    file = WireFile(path, "a .binaryproto")
    return read_blob_at(file, 0, file.size, "the blob")


def _find_blobs(file: WireFile, layer: wire.Item, what: str) -> tuple[str, list[tuple[int, int]]]:
    """A layer's name and where its blobs start and end; a V0 layer has both one message deeper."""
    is_v1 = layer.number == NET_LAYERS_V1
    name_number, blobs_number = (V1_NAME, V1_BLOBS) if is_v1 else (LAYER_NAME, LAYER_BLOBS)
    name, spans = "", []
    for item in file.items(layer.start, layer.end, what):
        if item.wire_type != BYTES:
            continue
        if item.number == name_number:
            name = file.text(item)
        elif item.number == blobs_number:
            spans.append((item.start, item.end))
        elif is_v1 and item.number == V1_V0_LAYER:
            for inner in file.items(item.start, item.end, what):
                if inner.wire_type == BYTES and inner.number == V0_NAME:
                    name = file.text(inner)
                elif inner.wire_type == BYTES and inner.number == V0_BLOBS:
                    spans.append((inner.start, inner.end))
    return name, spans


def read_blob_at(file: WireFile, start: int, end: int, what: str) -> np.ndarray:
    """The BlobProto between two offsets of a file, as in ``read``; errors call it ``what``."""
    legacy: dict[int, int] = {}
    dims: list[int] = []
    values: dict[int, list[np.ndarray]] = {BLOB_DATA: [], BLOB_DOUBLE_DATA: []}
    raw: wire.Item | None = None
    raw_type: int | None = None
    for item in file.items(start, end, what):
        if item.number in BLOB_LEGACY_DIMS and item.wire_type == VARINT:
            legacy[item.number] = item.value
        elif item.number == BLOB_SHAPE and item.wire_type == BYTES:
            dims += _read_dims(file, item, what)
        elif item.number == BLOB_DATA and item.wire_type in (BYTES, FIXED32):
            values[BLOB_DATA].append(file.numbers(item, "<f4", what))
        elif item.number == BLOB_DOUBLE_DATA and item.wire_type in (BYTES, FIXED64):
            values[BLOB_DOUBLE_DATA].append(file.numbers(item, "<f8", what))
        elif item.number == BLOB_RAW_TYPE and item.wire_type == VARINT:
            raw_type = item.value
        elif item.number == BLOB_RAW_DATA and item.wire_type == BYTES:
            raw = item
    shape = [legacy.get(number, 0) for number in BLOB_LEGACY_DIMS] if legacy else dims
    if len(shape) > MAX_AXES or not all(0 <= dim <= MAX_DIM for dim in shape):
        file.fail(f"{what}: {_spelled(shape)} is not a shape: at most {MAX_AXES} axes of 0 to {MAX_DIM}")
    parts = values[BLOB_DOUBLE_DATA] if any(map(len, values[BLOB_DOUBLE_DATA])) else values[BLOB_DATA]
    if raw is not None and raw.end > raw.start:
        parts = [_raw_numbers(file, raw, raw_type, what)]
    count = sum(map(len, parts))
    if math.prod(shape) != count:
        file.fail(f"{what}: shape {_spelled(shape)} needs {math.prod(shape)} values, the file holds {count}")
    blob = np.empty(count, np.float32)
    filled = 0
    with np.errstate(over="ignore", invalid="ignore"):  # a double beyond float32 becomes inf, as in Caffe
        for part in parts:
            blob[filled : filled + len(part)] = part
            filled += len(part)
    file.release(start, end)
    try:
        return blob.reshape(shape)
    except ValueError:  # no values, but dims whose product without the zeros is beyond any address
        file.fail(f"{what}: {_spelled(shape)} is too large a shape")


def _raw_numbers(file: WireFile, raw: wire.Item, raw_type: int | None, what: str) -> np.ndarray:
    if raw_type is None or not 0 <= raw_type < len(RAW_TYPES):
        known = "0 to 4 (double, float, half, int, unsigned int)"
        file.fail(f"{what}: its raw_data has {'no type' if raw_type is None else f'the type {raw_type}'}, not {known}")
    return file.numbers(raw, RAW_TYPES[raw_type], what)


def _read_dims(file: WireFile, shape: wire.Item, what: str) -> list[int]:
    dims: list[int] = []
    for item in file.items(shape.start, shape.end, what):
        if item.number == SHAPE_DIM and item.wire_type == VARINT:
            dims.append(item.value)
        elif item.number == SHAPE_DIM and item.wire_type == BYTES:
            position = item.start
            while position < item.end:
                value, position = file.varint(position, item.end, what)
                dims.append(wire.signed(value))
    return dims


def _spelled(shape: Sequence[int]) -> str:
    if not shape:
        return "() (a scalar)"
    return "x".join(map(str, shape[:MAX_AXES])) + ("x..." if len(shape) > MAX_AXES else "")


def _quoted(name: str) -> str:
    """A name on one line, also where it comes from a damaged file."""
    return repr(name if len(name) <= 100 else name[:100] + "...")


def write(path: str | os.PathLike, layers: Iterable[tuple[str, str, Sequence[np.ndarray]]], name: str = "") -> None:
    """Write a .caffemodel that Caffe reads: (layer name, layer type, blobs), stored as float32 with their shapes.

    The file appears complete or not at all. CaffemodelError where it cannot be written, where two layers with blobs
    share a name (Caffe would load both into one), or beyond Caffe's limit of 2 GB.
    """
    with whole_file(path, CaffemodelError) as temporary, open(temporary, "xb") as file:
        file.write(wire.encoded_text(NET_NAME, name) if name else b"")
        seen: set[str] = set()
        for layer_name, layer_type, blobs in layers:
            if len(blobs) and layer_name in seen:
                raise CaffemodelError(f"{path}: two layers with blobs are named {_quoted(layer_name)}")
            if len(blobs):
                seen.add(layer_name)
            for part in _layer_parts(layer_name, layer_type, blobs):
                file.write(part)
            if file.tell() > MAX_FILE_BYTES:
                raise CaffemodelError(f"{path}: the weights exceed 2 GB, which Caffe cannot read")


def _layer_parts(name: str, type_name: str, blobs: Sequence[np.ndarray]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = [wire.encoded_text(LAYER_NAME, name), wire.encoded_text(LAYER_TYPE, type_name)]
    for blob in blobs:
        parts += encoded_blob(LAYER_BLOBS, blob)
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    return [wire.encoded_key(NET_LAYER) + wire.encoded_varint(size), *parts]


def encoded_blob(number: int, blob: np.ndarray) -> list[bytes | memoryview]:
    """The field ``number`` of a message, a BlobProto that holds the array as float32; its values are not copied."""
    values = np.ascontiguousarray(blob, "<f4").reshape(-1)
    dims = wire.encoded_bytes(SHAPE_DIM, b"".join(map(wire.encoded_varint, np.shape(blob))))
    head = wire.encoded_bytes(BLOB_SHAPE, dims) + wire.encoded_key(BLOB_DATA) + wire.encoded_varint(values.nbytes)
    return [wire.encoded_key(number) + wire.encoded_varint(len(head) + values.nbytes) + head, values.data]
