"""Protobuf's wire format, read from a file without copies and written (protobuf.dev, "Encoding").

google.protobuf is not used for weights: for a blob of 100 MB it needs 60 times the time and three times the memory.
"""

from __future__ import annotations

import codecs
import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from caffe_tools.errors import CaffemodelError
from caffe_tools.files import kind_by_magic

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which Caffe has never had


class Item(NamedTuple):
    """One field, or a run of fixed-size fields with one key (an unpacked ``data``)."""

    number: int
    wire_type: int
    value: int  # of a VARINT, as int64
    start: int  # of the content; of the first key where the wire type is FIXED32 or FIXED64
    end: int
    key_size: int


class WireFile:
    """A file in protobuf's wire format, mapped into memory: reading it allocates nothing but what is kept."""

    def __init__(self, path: str | os.PathLike, expected: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if not self.size:
                    self.fail(f"the file is empty, where {expected} is expected")
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            self.fail(f"cannot read the file: {getattr(error, 'strerror', None) or error}")
        head = bytes(self.data[:512])
        if kind := kind_by_magic(head) or ("text (a prototxt or a web page)" if _is_text(head) else ""):
            self.fail(f"{kind}, where {expected} is expected")

    def items(self, start: int, end: int, what: str) -> Iterator[Item]:
        """The fields of the message between two offsets."""
        position = start
        while position < end:
            key_start = position
            key, position = self.varint(position, end, what)
            number, wire_type = key >> 3, key & 7
            key_size = position - key_start
            value = 0
            if wire_type == VARINT:
                value, stop = self.varint(position, end, what)
                value = signed(value)
            elif wire_type == BYTES:
                length, position = self.varint(position, end, what)
                stop = position + length
            elif wire_type in (FIXED32, FIXED64):
                size = 4 if wire_type == FIXED32 else 8
                stop = position + size
                if stop <= end:
                    stop = self.run_end(key_start, key_size, key_size + size, end)
                position = key_start
            else:
                self.fail(f"damaged at byte {key_start}: {what} has a field of unknown wire type {wire_type}")
            if not 0 < number < 1 << 29:
                self.fail(f"damaged at byte {key_start}: {what} has a field numbered {number}")
            if stop > end:
                self.fail(
                    f"truncated or damaged at byte {key_start}: {what}, field {number} needs {stop - position} bytes, "
                    f"{end - position} are left"
                )
            yield Item(number, wire_type, value, position, stop, key_size)
            position = stop

    def varint(self, position: int, end: int, what: str) -> tuple[int, int]:
        """An unsigned 64-bit varint and the offset after it."""
        value = 0
        for index, byte in enumerate(self.data[position : min(position + 10, end)]):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value & (1 << 64) - 1, position + index + 1
        self.fail(f"truncated or damaged at byte {position}: {what} has an integer that does not end")

    def run_end(self, start: int, key_size: int, record_size: int, end: int) -> int:
        """Where the records that repeat the key at ``start`` end; looks ahead in doubling steps, so linear."""
        key = np.frombuffer(self.data, np.uint8, key_size, start)
        position, step = start + record_size, 1
        while position + record_size <= end:
            step = min(2 * step, (end - position) // record_size)
            records = np.frombuffer(self.data, np.uint8, step * record_size, position).reshape(step, record_size)
            different = np.flatnonzero((records[:, :key_size] != key).any(axis=1))
            if len(different):
                return position + int(different[0]) * record_size
            position += step * record_size
        return position

    def numbers(self, item: Item, dtype: str, what: str) -> np.ndarray:
        """The numbers of a packed field or of an unpacked run, as a view of the file."""
        size = np.dtype(dtype).itemsize
        stride = size if item.wire_type == BYTES else item.key_size + size
        count, rest = divmod(item.end - item.start, stride)
        if rest:
            self.fail(f"damaged at byte {item.start}: {what} has {item.end - item.start} bytes of {size}-byte numbers")
        return np.ndarray(count, dtype, self.data, item.start + stride - size, (stride,))

    def release(self, start: int, end: int) -> None:
        """Give back the memory of the whole pages between two offsets; they are read anew when they are needed."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED, first, last - first)

    def text(self, item: Item) -> str:
        return bytes(self.data[item.start : item.end]).decode("utf-8", "backslashreplace")

    def fail(self, problem: str) -> NoReturn:
        raise CaffemodelError(f"{self.path}: {problem}")


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters: a .caffemodel has some among its first bytes (keys and lengths)."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(character >= " " and character != "\x7f" or character in "\t\n\r" for character in text)


def signed(value: int) -> int:
    """The int64 that protobuf writes as this unsigned varint."""
    return value - (1 << 64) if value >> 63 else value


def encoded_bytes(number: int, content: bytes) -> bytes:
    return encoded_key(number) + encoded_varint(len(content)) + content


def encoded_text(number: int, text: str) -> bytes:
    return encoded_bytes(number, text.encode("utf-8", "backslashreplace"))


def encoded_integer(number: int, value: int) -> bytes:
    return encoded_key(number, VARINT) + encoded_varint(value)


def encoded_key(number: int, wire_type: int = BYTES) -> bytes:
    return encoded_varint(number << 3 | wire_type)


def encoded_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
