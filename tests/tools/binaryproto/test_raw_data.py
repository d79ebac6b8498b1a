"""Blobs whose numbers stand in ``raw_data`` with their type, as NVIDIA's Caffe and shrinkCaffeModel write them."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.binaryproto.wire import encoded_bytes, encoded_integer, encoded_text
from caffe_tools.errors import CaffemodelError
from caffe_tools.net.net import Net

VALUES = np.array([[1, 2, 3], [0.5, 65504, 7]], np.float64)
SHAPE = encoded_bytes(7, encoded_bytes(1, bytes([2, 3])))


def written(tmp_path, blob: bytes):
    path = tmp_path / "raw.caffemodel"
    path.write_bytes(encoded_bytes(100, encoded_text(1, "ip") + encoded_bytes(7, blob)))
    return path


@pytest.mark.parametrize("number", range(5))
def test_raw_data_is_read_as_its_type(tmp_path, number):
    array = VALUES.astype(["<f8", "<f4", "<f2", "<i4", "<u4"][number])
    path = written(tmp_path, SHAPE + encoded_integer(10, number) + encoded_bytes(12, array.tobytes()))
    blob = caffemodel.read(path)["ip"][0]
    assert blob.dtype == np.float32
    np.testing.assert_array_equal(blob, array.astype(np.float32))


@pytest.mark.parametrize(
    ("type_", "raw", "said"),
    [
        (b"", bytes(12), "raw_data has no type"),
        (encoded_integer(10, 9), bytes(12), "raw_data has the type 9"),
        (encoded_integer(10, 2), bytes(10), "needs 6 values, the file holds 5"),
        (encoded_integer(10, 2), bytes(11), "11 bytes of 2-byte numbers"),
    ],
)
def test_raw_data_that_cannot_be_read_is_one_line(tmp_path, type_, raw, said):
    with pytest.raises(CaffemodelError, match=f"layer 'ip', blob 0.*{said}"):
        caffemodel.read(written(tmp_path, SHAPE + type_ + encoded_bytes(12, raw)))


def test_a_half_precision_model_of_opencv_is_read(shared):
    folder = shared / "field" / "refused"
    net = Net(folder / "fp16.prototxt", "TEST", weights=folder / "fp16.caffemodel")
    net.blobs["data"].data[...] = 1
    np.testing.assert_array_equal(net.forward()["conv"][0, :, 0, 0], [43.875, 135])
