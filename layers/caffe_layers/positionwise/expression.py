"""Losses with one term per position, in ONNX: what losses.py does, as nodes of a graph.

A layer gets its target as :class:`PositionwiseTarget`, and :func:`onnx_loss` makes the sum.
"""

from __future__ import annotations

import numpy as np

from caffe_layers import normalization
from caffe_layers.expression import HIGHEST, OnnxTarget, onnx_sum, product


class PositionwiseTarget(OnnxTarget):
    """The same in ONNX: values of the scores' rank, with 1 channel where they hold one number per position.

    ``channel`` is the labelled channel of an index target (else None), ``values`` the weight of each channel of another
    (else None), ``coefficient`` a factor of each position's loss, ``factor`` the scalar 1 / divisor. The labels are not
    checked: what is out of range is undefined in the graph.
    """

    def __init__(self, op, params, scores, labels, weights, scale=None):
        super().__init__(op, params, scores, "VALID")
        self.weights = None if weights is None else op.reshape(weights, self.position_dims)
        self.channel = self.values = None
        if params.get("target", "index") == "index":
            count = self._read_index(op.reshape(labels, self.position_dims), scale)
        else:
            count = self._read_dense(labels)
        self.factor = normalization.onnx_factor(op, self.mode, count)

    def of_class(self, values):
        """Each position's entry of a list of numbers, one per class."""
        return self.op.Gather(self.op.constant(np.asarray(values, np.float64)), self.channel)

    def _read_index(self, labels, scale):
        op, background, class_weight = self.op, self.params["background_label"], self.params["class_weight"]
        label = op.cast(labels, "int64")
        counted = None
        if self.params["ignore_label"] is not None:
            counted = op.Not(op.Equal(label, self.params["ignore_label"]))
            label = op.Mul(label, op.cast(counted, "int64"))
        self.channel = label
        mask = None if counted is None else op.cast(counted, self.scores)
        labelled_weight = None if class_weight is None else self.of_class(class_weight)
        weight = product(op, mask, labelled_weight, self.weights)
        self.coefficient = weight
        if self.params.get("label_smoothing", 0.0):
            self.coefficient = product(op, mask, self.weights)
            self.values, self.channel = self._smoothed_index(labelled_weight), None
        if scale is not None:
            self.coefficient = product(op, self.coefficient, scale(self))
        if self.mode == "POSITIVES":
            foreground = None if background is None else op.cast(op.Not(op.Equal(label, background)), self.scores)
            return self._sum(product(op, mask, foreground))
        return self._count(mask, weight)

    def _smoothed_index(self, labelled_weight):
        op, epsilon = self.op, self.params["label_smoothing"]
        uniform = self.per_class(self.params["class_weight"] or [1.0] * self.channels) * (epsilon / self.channels)
        labelled = op.Mul(
            labelled_weight or op.Expand(1.0, op.Shape(self.channel)), 1 - epsilon + epsilon / self.channels
        )
        others = op.Expand(uniform, op.Shape(self.scores))
        return op.ScatterElements(others, self.channel, labelled, axis=self.axis)

    def _read_dense(self, t):
        op, axis, params = self.op, [self.axis], self.params
        counted = mask = None
        if params["ignore_label"] is not None:
            counted_elements = op.Not(op.Equal(t, params["ignore_label"]))
            t = op.Where(counted_elements, t, 0)
            counted = op.cast(counted_elements, self.scores)
            mask = op.ReduceMax(counted, axis, keepdims=1)
        number = None
        share = None
        if params["target"] == "multi_label":
            number = op.ReduceSum(op.cast(op.Greater(t, 0), self.scores), axis, keepdims=1)
            share = op.Reciprocal(op.Max(number, 1))
        self.coefficient = product(op, share, self.weights)
        class_weight = None if params["class_weight"] is None else self.per_class(params["class_weight"])
        self.values = weighted = product(op, t, class_weight)
        if params["label_smoothing"]:
            uniform = params["label_smoothing"] / self.channels
            smooth = op.Add(op.Mul(t, 1 - params["label_smoothing"]), product(op, uniform, number))
            self.values = product(op, smooth, counted, class_weight)
        if self.mode == "POSITIVES" and number is not None:
            return self._sum(number)
        if self.mode == "POSITIVES":
            foreground = op.cast(op.Greater(t, 0), self.scores)
            if params["background_label"] is not None:
                is_foreground = np.arange(self.channels) != params["background_label"]
                foreground = op.Mul(foreground, self.per_class(is_foreground))
            return self._sum(op.ReduceMax(foreground, axis, keepdims=1))
        if self.mode == "WEIGHT":
            return self._sum(product(op, op.ReduceSum(weighted, axis, keepdims=1), self.coefficient))
        return self._count(mask, None)

    def _count(self, mask, weight):
        """The count of the modes that are alike for all targets; None means that all are counted, with weight 1."""
        every = [axis for axis in range(len(self.position_dims)) if axis != self.axis]
        if self.mode == "BATCH_SIZE":
            return self.op.count(self.scores, every[: self.axis])
        if self.mode == "VALID" and mask is not None:
            return self._sum(mask)
        if self.mode == "WEIGHT" and weight is not None:
            return self._sum(weight)
        return self.op.count(self.scores, every)

    def _sum(self, values):
        """The sum over all positions of values that may have lost dims of 1; None stands for ones."""
        return self._count(None, None) if values is None else onnx_sum(self.op, values)


def onnx_loss(op, target, losses):
    """The loss, of shape [1], from the losses of the positions."""
    total = onnx_sum(op, product(op, losses, target.coefficient))
    return op.reshape(op.Min(product(op, total, target.factor), HIGHEST), [1])
