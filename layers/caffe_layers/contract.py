"""What a layer is without Caffe: the errors that our layers raise, and stand-ins for what Caffe hands to them.

Nothing here imports Caffe, so that programs which only want to know these names need none.
"""

from __future__ import annotations

import numpy as np

TRAIN, TEST = 0, 1


class LayerError(ValueError):
    """A layer was asked for something that it does not define; the message names the layer and what would be right."""


class ParameterError(LayerError):
    """``param_str`` (or a keyword of the functional API) is unknown, mistyped or does not fit the scores."""


class ShapeError(LayerError):
    """A bottom has a shape that does not fit the others, or there are too many or too few bottoms or tops."""


class LabelError(LayerError):
    """A label, target or weight has a value that is not defined."""


class StandInBlob:
    """Stands in for Caffe's blob of learnable parameters: ``data`` and ``diff`` of one shape."""

    def __init__(self, *shape):
        self.reshape(*shape)

    def reshape(self, *shape):
        self.data = np.zeros(shape, np.float32)
        self.diff = np.zeros(shape, np.float32)

    @property
    def shape(self):
        return self.data.shape


class StandInBlobs(list):
    """Stands in for Caffe's vector of blobs."""

    def add_blob(self, *shape):
        self.append(StandInBlob(*shape))
        return self[-1]


class StandInLayer:
    """Stands in for ``caffe.Layer``: who makes the layer sets ``param_str`` and ``phase`` before ``setup``."""

    param_str = ""
    phase = TRAIN

    def __init__(self, layer_param=None):
        self.layer_param = layer_param
        self.blobs = StandInBlobs()
