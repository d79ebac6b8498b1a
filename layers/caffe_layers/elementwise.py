"""Losses with one term per element: targets, the sum over elements and its normalisation.

The sigmoid losses differ in one small function:

``terms(x, t, pos_weight, gradient) -> losses``
    the loss of each element of ``x`` for the target ``t`` (a number, or an array that broadcasts with ``x``) in [0, 1];
    it writes the derivative by x where ``gradient`` is not None.

In ONNX it is ``onnx_terms(op, x, t, pos_weight) -> (losses, derivative)``, where t and pos_weight may be numbers and
``derivative()`` gives the derivative; :func:`onnx_loss` makes the layer of it.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers import normalization
from caffe_layers.layer import ShapeError
from caffe_layers.loss import AXIS, CLASS_WEIGHT, HIGHEST, ignore_label, product
from caffe_layers.params import BELOW_ONE, INTEGER_FROM_0, WEIGHT_OR_WEIGHTS, Parameter, choice, or_null
from caffe_layers.sigmoid import halves
from caffe_layers.targets import IndexTarget, per_class, read_dense, read_weights

PARAMETERS = (
    AXIS,
    Parameter("target", choice("index", "multi_label"), "multi_label", "what the labels are"),
    ignore_label("positions (index) or elements of the target"),
    *normalization.parameters("BATCH_SIZE"),
    CLASS_WEIGHT,
    Parameter("label_smoothing", BELOW_ONE, 0.0, "eps: the target t becomes (1 - eps) t + eps / 2"),
    Parameter("pos_weight", or_null(WEIGHT_OR_WEIGHTS), None, "multiplies the term of t, the positive one"),
    Parameter(
        "background_label", or_null(INTEGER_FROM_0), 0, "index: the label without a channel; null: all labels have one"
    ),
)


def evaluate(params, layout, scores, labels, weights, gradient, probabilities, terms, class_factor=None):
    """The sum of the loss and 1 / divisor, as ``LossLayer.evaluate``.

    ``class_factor`` (C x 1, or None) multiplies the terms of each class as class_weight does, but does not count for
    WEIGHT.
    """
    weights = None if weights is None else _by_element(layout, read_weights(weights))
    mode = normalization.mode(params, "BATCH_SIZE")
    class_weight = per_class("class_weight", params["class_weight"], layout.channels, scores.dtype)
    pos_weight = per_class("pos_weight", params["pos_weight"], layout.channels, scores.dtype)
    coefficient = _times(class_weight, class_factor)
    read = _IndexTerms if params["target"] == "index" else _DenseTerms
    target = read(params, layout, labels, weights, mode, class_weight, pos_weight, terms)
    limit = np.finfo(scores.dtype).max
    total = 0.0
    for block in layout.blocks():
        rows, columns = block
        x, dx, p = (None if a is None else a[rows, :, columns] for a in (scores, gradient, probabilities))
        losses, ignored = target.terms_of(block, x, dx)
        weight = _times(coefficient, None if weights is None else weights[rows, :, columns].astype(x.dtype))
        if weight is not None:
            losses *= weight
            if dx is not None:
                dx *= weight
        # pos_weight and the like may take a loss beyond what the dtype holds.
        np.minimum(losses, limit, out=losses)
        if ignored is not None:
            losses[ignored] = 0
            if dx is not None:
                dx[ignored] = 0
        if p is not None:
            _, larger, smaller = halves(x)
            p[...] = np.where(x < 0, smaller, larger)
        total += float(losses.sum(dtype=np.float64))
    batch = layout.shape[0]
    count = {"FULL": layout.positions * layout.channels, "BATCH_SIZE": batch}.get(mode, target.count)
    return total, normalization.factor(mode, count)


def _by_element(layout, weights):
    """Weights as outer x C x inner, or outer x 1 x inner where there is one per position."""
    if weights.size == layout.positions:
        return layout.positionwise(weights)[:, None]
    return layout.channelwise(weights)


def _times(a, b):
    return b if a is None else a if b is None else a * b


class _IndexTerms:
    """Labels, one per position: t is 1 in the channel that the label names and 0 in the others."""

    def __init__(self, params, layout, labels, weights, mode, class_weight, pos_weight, terms):
        self.target = IndexTarget(labels, layout, params["ignore_label"], params["background_label"], False)
        self.count = self.target.count(mode, class_weight, None if weights is None else weights[:, 0])
        if mode == "VALID":
            self.count *= layout.channels
        self.negative, self.positive = params["label_smoothing"] / 2, 1 - params["label_smoothing"] / 2
        self.pos_weight, self.terms = pos_weight, terms

    def terms_of(self, block, x, gradient):
        losses = self.terms(x, self.negative, self.pos_weight, gradient)
        rows, columns = np.nonzero(self.target.named[block])
        place = rows, self.target.channel[block][rows, columns], columns
        pos_weight = self.pos_weight[place[1], 0] if isinstance(self.pos_weight, np.ndarray) else self.pos_weight
        labelled = None if gradient is None else np.empty(len(rows), x.dtype)
        losses[place] = self.terms(x[place], self.positive, pos_weight, labelled)
        if gradient is not None:
            gradient[place] = labelled
        ignored = self.target.ignored[block]
        return losses, np.repeat(ignored[:, None], x.shape[1], axis=1) if ignored.any() else None


class _DenseTerms:
    """Targets in [0, 1], one per element."""

    def __init__(self, params, layout, labels, weights, mode, class_weight, pos_weight, terms):
        self.params, self.layout, self.labels, self.weights, self.mode = params, layout, labels, weights, mode
        self.class_weight, self.pos_weight, self.terms = class_weight, pos_weight, terms
        self.count = 0

    def terms_of(self, block, x, gradient):
        t, ignored = read_dense(self.labels, self.layout, block, x.dtype, self.params["ignore_label"], high=1)
        self.count += self._count(t, ignored, block)
        epsilon = self.params["label_smoothing"]
        if epsilon:
            t = t * (1 - epsilon) + epsilon / 2
        return self.terms(x, t, self.pos_weight, gradient), ignored

    def _count(self, t, ignored, block):
        if self.mode == "VALID":
            return t.size - (0 if ignored is None else np.count_nonzero(ignored))
        if self.mode == "POSITIVES":
            return np.count_nonzero(t)
        if self.mode == "WEIGHT":
            weights = None if self.weights is None else self.weights[block[0], :, block[1]]
            return float(_times(_times(t, self.class_weight), weights).sum(dtype=np.float64))
        return 0


class OnnxTarget:
    """The same in ONNX: :meth:`spread` applies a function of (x, t, pos_weight) to every element with its target.

    ``coefficient`` is a factor of the elements' losses or None, ``factor`` the scalar 1 / divisor. The labels are not
    checked: what is out of range is undefined in the graph.
    """

    def __init__(self, op, params, scores, labels, weights, class_factor):
        self.op, self.params, self.scores = op, params, scores
        self.shape = op.shape(scores)
        self.axis = params["axis"] % len(self.shape)
        self.channels = self.shape[self.axis]
        if isinstance(self.channels, str):
            raise ShapeError(
                f"the scores {self.shape} cannot be exported with axis {self.axis}: that dim must be a number"
            )
        self.position_dims = self.shape[: self.axis] + (1,) + self.shape[self.axis + 1 :]
        self.mode = normalization.mode(params, "BATCH_SIZE")
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
        trailing = (1,) * (len(self.shape) - self.axis - 1)
        return np.reshape(values, (-1, *trailing)) if isinstance(values, list) else values

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
            return mask, op.Mul(op.ReduceSum(mask, keepdims=0), self.channels)
        if self.mode == "POSITIVES" and named is not None:
            return mask, op.ReduceSum(named, keepdims=0)
        if self.mode == "POSITIVES":
            return mask, op.Div(op.count(self.scores), self.channels)
        if self.mode == "WEIGHT":
            class_weight = op.Expand(1.0, op.Shape(self.channel))
            if self.class_weight is not None:
                class_weight = op.Gather(op.constant(self.class_weight.reshape(-1)), self.channel)
            return mask, op.ReduceSum(product(op, class_weight, named, self.weights), keepdims=0)
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
            return mask, op.ReduceSum(mask, keepdims=0)
        if self.mode == "POSITIVES":
            return mask, op.ReduceSum(op.cast(op.Greater(t, 0), self.scores), keepdims=0)
        if self.mode == "WEIGHT":
            return mask, op.ReduceSum(product(op, t, self.class_weight, self.weights), keepdims=0)
        return mask, self._static_count()

    def _static_count(self):
        return self.op.count(self.scores, [0] if self.mode == "BATCH_SIZE" else None)

    def spread(self, terms):
        """``terms(x, t, pos_weight)`` of every element: (losses, derivative), of the scores' shape.

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
            self._place(labelled, everywhere),
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


def onnx_loss(op, layer, scores, labels, weights, onnx_terms, class_factor=None):
    """The layer's top or tops."""
    target = OnnxTarget(op, layer.params, scores, labels, weights, class_factor)
    losses, derivative = target.spread(onnx_terms)
    total = op.ReduceSum(product(op, losses, target.coefficient), keepdims=0)
    tops = [op.reshape(op.Min(product(op, total, target.factor), HIGHEST), [1])]
    if layer.top_count > 1:
        tops.append(op.Sigmoid(scores))

    def gradient(loss_diff, probabilities_diff=None):
        if loss_diff is None:
            return [None]
        return [op.Mul(derivative(), product(op, loss_diff, target.factor, target.coefficient))]

    op.define_gradient(tops, [scores], gradient)
    return tuple(tops)
