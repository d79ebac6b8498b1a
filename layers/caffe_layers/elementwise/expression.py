"""Losses with one term per element, in ONNX: what losses.py does, as nodes of a graph.

The losses differ in ``onnx_terms(op, x, t, pos_weight) -> (parts, derivative)``, where t and pos_weight may be numbers.
The loss of an element is the sum of the ``parts``, and ``derivative()`` gives its derivative; :func:`onnx_loss` makes
the layer of them.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers import normalization
from caffe_layers.expression import HIGHEST, OnnxTarget, onnx_sum, product


class ElementwiseTarget(OnnxTarget):
    """The same in ONNX: :meth:`spread` applies a function of (x, t, pos_weight) to every element with its target.

    ``coefficient`` is a factor of the elements' losses or None, ``factor`` the scalar 1 / divisor. The labels are not
    checked: what is out of range is undefined in the graph.
    """

    def __init__(self, op, params, scores, labels, weights, class_factor):
        super().__init__(op, params, scores, "BATCH_SIZE")
        self.class_weight = self.per_class(params["class_weight"])
        self.pos_weight = self.per_class(params["pos_weight"])
        self.weights = None if weights is None else self._lay_out(weights)
        self.named = None
        read = self._read_index if params["target"] == "index" else self._read_dense
        self.mask, count = read(labels)
        self.coefficient = product(op, self.class_weight, self.per_class(class_factor), self.mask, self.weights)
        self.factor = normalization.onnx_factor(op, self.mode, count)

    def per_class(self, values):
        """A list of numbers, one per class, as an array that broadcasts with the scores; a number or None as it is."""
        return super().per_class(values) if isinstance(values, list) else values

    def _lay_out(self, weights):
        dims = self.op.shape(weights)
        per_element = _count_of(dims) == _count_of(self.shape) and _count_of(dims) != _count_of(self.position_dims)
        return self.op.reshape(weights, self.shape if per_element else self.position_dims)

    def _read_index(self, labels):
        op, background = self.op, self.params["background_label"]
        label = op.cast(op.reshape(labels, self.position_dims), "int64")
        mask = counted = None
        if self.params["ignore_label"] is not None:
            counted = op.Not(op.Equal(label, self.params["ignore_label"]))
            mask = op.cast(counted, self.scores)
            label = op.Where(counted, label, 0 if background is None else background)
        self.channel, self.named = label, counted
        if background is not None:
            # An ignored label stands for the background here, so it has no channel either.
            self.named = op.Not(op.Equal(label, background))
            lower = op.Sub(label, op.cast(op.Greater(label, background), "int64"))
            self.channel = op.Where(self.named, lower, 0)
        named = None if self.named is None else op.cast(self.named, self.scores)
        if self.mode == "VALID" and mask is not None:
            return mask, op.Mul(onnx_sum(op, mask), self.channels)
        if self.mode == "POSITIVES" and named is not None:
            return mask, onnx_sum(op, named)
        if self.mode == "POSITIVES":
            return mask, op.Div(op.count(self.scores), self.channels)
        if self.mode == "WEIGHT":
            class_weight = op.Expand(1.0, op.Shape(self.channel))
            if self.class_weight is not None:
                class_weight = op.Gather(op.constant(self.class_weight.reshape(-1)), self.channel)
            return mask, onnx_sum(op, product(op, class_weight, named, self.weights))
        return mask, self._static_count()

    def _read_dense(self, labels):
        op, mask = self.op, None
        t = op.reshape(labels, self.shape)
        if self.params["ignore_label"] is not None:
            counted = op.Not(op.Equal(t, self.params["ignore_label"]))
            mask = op.cast(counted, self.scores)
            t = op.Where(counted, t, 0)
        epsilon = self.params["label_smoothing"]
        self.target = op.Add(op.Mul(t, 1 - epsilon), epsilon / 2) if epsilon else t
        if self.mode == "VALID" and mask is not None:
            return mask, onnx_sum(op, mask)
        if self.mode == "POSITIVES":
            return mask, onnx_sum(op, op.cast(op.Greater(t, 0), self.scores))
        if self.mode == "WEIGHT":
            return mask, onnx_sum(op, product(op, t, self.class_weight, self.weights))
        return mask, self._static_count()

    def _static_count(self):
        return self.op.count(self.scores, [0] if self.mode == "BATCH_SIZE" else None)

    def spread(self, terms):
        """``terms(x, t, pos_weight)`` of every element: (parts, derivative), of the scores' shape.

        For index targets that is t = 0 everywhere, and then t = 1 for the one element of each position that the label
        names.
        """
        op, epsilon = self.op, self.params["label_smoothing"]
        if self.params["target"] != "index":
            return terms(op, self.scores, self.target, self.pos_weight)
        pos_weight = self.pos_weight
        if isinstance(pos_weight, np.ndarray):
            pos_weight = op.Gather(op.constant(pos_weight.reshape(-1)), self.channel)
        scores_there = op.GatherElements(self.scores, self.channel, axis=self.axis)
        everywhere, everywhere_derivative = terms(op, self.scores, epsilon / 2, self.pos_weight)
        labelled, labelled_derivative = terms(op, scores_there, 1 - epsilon / 2, pos_weight)
        return (
            [self._place(add(op, labelled), add(op, everywhere))],
            lambda: self._place(labelled_derivative(), everywhere_derivative()),
        )

    def _place(self, labelled, everywhere):
        """``everywhere`` with ``labelled`` in the channels that the labels name."""
        op = self.op
        if self.named is not None:
            labelled = op.Where(self.named, labelled, op.GatherElements(everywhere, self.channel, axis=self.axis))
        return op.ScatterElements(everywhere, self.channel, labelled, axis=self.axis)


def _count_of(dims):
    return math.prod(dim for dim in dims if not isinstance(dim, str)), sorted(d for d in dims if isinstance(d, str))


def add(op, parts):
    """Their ONNX sum, element by element."""
    total = parts[0]
    for part in parts[1:]:
        total = op.Add(total, part)
    return total


def onnx_loss(op, layer, scores, labels, weights, onnx_terms, class_factor=None):
    """The layer's top or tops."""
    target = ElementwiseTarget(op, layer.params, scores, labels, weights, class_factor)
    parts, derivative = target.spread(onnx_terms)
    if target.coefficient is not None:
        parts = [op.Mul(add(op, parts), target.coefficient)]
    # To sum up each part and add the sums takes less memory traffic than to add the parts.
    total = add(op, [onnx_sum(op, part) for part in parts])
    tops = [op.reshape(op.Min(product(op, total, target.factor), HIGHEST), [1])]
    if layer.top_count > 1:
        tops.append(op.Sigmoid(scores))

    def gradient(loss_diff, probabilities_diff=None):
        if loss_diff is None:
            return [None]
        return [op.Mul(derivative(), product(op, loss_diff, target.factor, target.coefficient))]

    op.define_gradient(tops, [scores], gradient)
    return tuple(tops)
