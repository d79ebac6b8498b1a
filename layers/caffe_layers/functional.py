"""The layers' formulas as pure functions of arrays: no blobs, no Caffe, no state.

``softmax`` and ``sigmoid`` give an array. The losses are ``f(scores, labels, weights=None, *, <parameters of the
layer>)`` and give ``(loss, gradient)``: a float, and an array of the scores' shape and dtype. Inputs are never written.
"""

from caffe_layers.cross_entropy import cross_entropy_loss
from caffe_layers.sigmoid import sigmoid
from caffe_layers.sigmoid_cross_entropy import sigmoid_cross_entropy_loss
from caffe_layers.sigmoid_focal import sigmoid_focal_loss
from caffe_layers.softmax import softmax
from caffe_layers.softmax_focal import softmax_focal_loss
from caffe_layers.softmax_loss import softmax_loss

__all__ = [
    "cross_entropy_loss",
    "sigmoid",
    "sigmoid_cross_entropy_loss",
    "sigmoid_focal_loss",
    "softmax",
    "softmax_focal_loss",
    "softmax_loss",
]
