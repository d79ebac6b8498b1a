"""A layer on blobs, called in Caffe's order."""

from __future__ import annotations

import json

import numpy as np

from caffe_tools.net.blob import Blob
from caffe_tools.net.python_layer import make_instance


def blob_of(array, dtype=np.float32):
    blob = Blob(np.shape(array), dtype)
    blob.data[...] = array
    return blob


class Run:
    """One layer with its bottoms and tops, after ``setup`` and ``reshape``: ``forward``, ``backward`` are to call."""

    def __init__(self, layer_class, params, bottoms, tops=1, phase=0, dtype=np.float32):
        param_str = params if isinstance(params, str) else json.dumps(params)
        self.layer = make_instance(layer_class, param_str, ("TRAIN", "TEST")[phase], dtype)
        self.bottom = [blob_of(array, dtype) for array in bottoms]
        self.top = [Blob((), dtype) for _ in range(tops)]
        self.layer.setup(self.bottom, self.top)
        self.layer.reshape(self.bottom, self.top)

    def forward(self):
        self.layer.reshape(self.bottom, self.top)
        self.layer.forward(self.bottom, self.top)
        return self

    def backward(self, top_diff=1.0, propagate_down=None):
        self.top[0].diff[...] = top_diff
        down = [True] + [False] * (len(self.bottom) - 1) if propagate_down is None else propagate_down
        self.layer.backward(self.top, down, self.bottom)
        return self.bottom[0].diff.copy()
