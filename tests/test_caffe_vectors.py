"""Layers must live with what a real Caffe hands them, which is stricter than lists of blobs.

Bottoms and tops are a ``RawBlobVec`` (boost's vector_indexing_suite over Blob pointers): it has a length, and indexing
and slicing make new wrappers each time, so that ``is`` says nothing; iterating raises. ``Blob.reshape`` takes Python
integers alone. Source: Caffe python/caffe/_caffe.cpp; boost/python/suite/indexing/detail/indexing_suite_detail.hpp.
"""

import numpy as np
import pytest

import caffe_layers
from caffe_tools.net.blob import Blob


class StrictBlob:
    """One access to a blob; its shape is a list, as Caffe's IntVec is no tuple."""

    def __init__(self, blob):
        self._blob = blob

    shape = property(lambda self: list(self._blob.shape))
    data = property(lambda self: self._blob.data)
    diff = property(lambda self: self._blob.diff)
    count = property(lambda self: self._blob.count)

    def reshape(self, *dims):
        for dim in dims:
            if type(dim) is not int:
                raise TypeError(f"No registered converter was able to produce a C++ rvalue of type int from {dim!r}")
        self._blob.reshape(*dims)


class RawBlobVec:
    def __init__(self, blobs):
        self._blobs = list(blobs)

    def __len__(self):
        return len(self._blobs)

    def __getitem__(self, index):
        return RawBlobVec(self._blobs[index]) if isinstance(index, slice) else StrictBlob(self._blobs[index])

    def __iter__(self):
        raise TypeError("No to_python (by-value) converter found for C++ type: caffe::Blob<float>*")


def blob_of(array):
    blob = Blob(np.shape(array))
    blob.data[...] = array
    return blob


def layer_of(name, param_str, bottom, top):
    layer = getattr(caffe_layers, name)(None)
    layer.param_str, layer.phase = param_str, 0
    layer.setup(bottom, top)
    layer.reshape(bottom, top)
    return layer


RANDOM = np.random.RandomState(0)
SCORES = RANDOM.rand(4, 3)
INDEX = np.array([0, 2, 1, 0])
MULTI_HOT = np.eye(3)[INDEX]


@pytest.mark.parametrize(
    "name, labels",
    [
        ("CrossEntropyLossLayer", INDEX),
        ("SoftmaxLossLayer", INDEX),
        ("SoftmaxFocalLossLayer", INDEX),
        ("SigmoidCrossEntropyLossLayer", MULTI_HOT),
        ("SigmoidFocalLossLayer", MULTI_HOT),
    ],
)
def test_a_loss_indexes_its_bottoms_and_tops(name, labels):
    scores, loss = blob_of(SCORES), Blob()
    bottom, top = RawBlobVec([scores, blob_of(labels), blob_of(np.ones(4))]), RawBlobVec([loss])
    layer = layer_of(name, "", bottom, top)
    layer.forward(bottom, top)
    loss.diff[...] = 1
    layer.backward(top, [True, False, False], bottom)
    assert loss.data.shape == (1,) and loss.data > 0
    assert scores.diff.any()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["SoftmaxLayer", "SigmoidLayer"])
def test_an_activation_indexes_its_bottoms_and_tops(name, in_place):
    scores = blob_of(SCORES)
    probability = scores if in_place else Blob()
    bottom, top = RawBlobVec([scores]), RawBlobVec([probability])
    layer = layer_of(name, "", bottom, top)
    layer.forward(bottom, top)
    probability.diff[...] = RANDOM.randn(4, 3)
    layer.backward(top, [True], bottom)
    assert scores.diff.any()


def test_the_data_layer_indexes_its_tops(tmp_path):
    np.savez(tmp_path / "data.npz", data=SCORES, label=INDEX)
    data, label = Blob(), Blob()
    bottom, top = RawBlobVec([]), RawBlobVec([data, label])
    source = (tmp_path / "data.npz").as_posix()
    layer = layer_of("NpzDataLayer", f'{{"source": "{source}", "batch_size": 3}}', bottom, top)
    layer.forward(bottom, top)
    layer.backward(top, [], bottom)
    assert np.array_equal(data.data, SCORES[:3].astype(np.float32)) and np.array_equal(label.data, INDEX[:3])
