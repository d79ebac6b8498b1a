"""Losses with one term per position: targets, the sum over positions and its normalisation.

The softmax losses and the cross-entropy of probabilities differ only in two small functions each:

``index_block(x, channel, coefficient, gradient, probabilities) -> losses``
    the loss of a position is coefficient x l(x, channel), where ``channel`` (n x s) is the labelled one;
``dense_block(x, target, coefficient, gradient, probabilities) -> losses``
    the loss of a position is coefficient x l(x, target), where ``target`` (n x C x s) weighs each channel.

``x`` is a cache-sized n x C x s block of scores; ``coefficient`` and the losses are n x s, float64. Both write the
gradient of the losses' sum and the probabilities where those are not None.

In ONNX a layer gets its target as :class:`OnnxTarget`, and :func:`onnx_loss` makes the sum.
"""

from __future__ import annotations

import numpy as np

from caffe_layers import normalization
from caffe_layers.layer import ShapeError
from caffe_layers.loss import AXIS, CLASS_WEIGHT, HIGHEST, ignore_label, product
from caffe_layers.params import BELOW_ONE, INTEGER_FROM_0, Parameter, choice, or_null
from caffe_layers.targets import IndexTarget, per_class, read_dense, read_weights

PARAMETERS = (
    AXIS,
    Parameter("target", choice("index", "distribution", "multi_label"), "index", "what the labels are"),
    ignore_label("positions (index) or elements of the target"),
    *normalization.parameters("VALID"),
    CLASS_WEIGHT,
    Parameter("label_smoothing", BELOW_ONE, 0.0, "eps: the target t becomes (1 - eps) t + eps / C"),
    Parameter("background_label", or_null(INTEGER_FROM_0), 0, "the class that POSITIVES does not count; null: none"),
)


def evaluate(params, layout, scores, labels, weights, gradient, probabilities, index_block, dense_block, scale=None):
    """The sum of the loss and 1 / divisor, as ``LossLayer.evaluate``.

    ``scale(index_target)`` gives one more factor for each position of an index target.
    """
    weights = None if weights is None else layout.positionwise(read_weights(weights))
    mode = normalization.mode(params, "VALID")
    if params.get("target", "index") == "index":
        target = _Index(params, layout, scores.dtype, labels, weights, mode, scale)
    else:
        target = _Dense(params, layout, scores.dtype, labels, weights, mode)
    total = 0.0
    for block in layout.blocks():
        rows, columns = block
        x, dx, p = (None if a is None else a[rows, :, columns] for a in (scores, gradient, probabilities))
        values, coefficient, ignored = target.block(block)
        losses = (index_block if values.ndim == 2 else dense_block)(x, values, coefficient, dx, p)
        # Not left to a coefficient of 0, so that a NaN in an ignored position stays there.
        if ignored.any():
            losses[ignored] = 0
            if dx is not None:
                dx.transpose(0, 2, 1)[ignored] = 0
        total += float(losses.sum())
    count = {"FULL": layout.positions, "BATCH_SIZE": layout.outer}.get(mode, target.count)
    return total, normalization.factor(mode, count)


class _Index:
    """Labels, one per position."""

    def __init__(self, params, layout, dtype, labels, weights, mode, scale):
        target = IndexTarget(labels, layout, params["ignore_label"], params["background_label"], True)
        class_weight = per_class("class_weight", params["class_weight"], layout.channels, dtype)
        self.channel, self.ignored = target.channel, target.ignored
        self.count = target.count(mode, class_weight, weights)
        self.smoothing = params.get("label_smoothing", 0.0)
        self.class_weight = np.ones((layout.channels, 1), dtype) if class_weight is None else class_weight
        self.coefficient = np.where(target.ignored, 0.0, 1.0 if weights is None else weights).astype(np.float64)
        if class_weight is not None and not self.smoothing:
            self.coefficient *= target.of_class(class_weight)
        if scale is not None:
            self.coefficient *= scale(target)

    def block(self, block):
        channel, coefficient, ignored = self.channel[block], self.coefficient[block], self.ignored[block]
        if not self.smoothing:
            return channel, coefficient, ignored
        channels = len(self.class_weight)
        smooth = np.empty((len(channel), channels, channel.shape[1]), self.class_weight.dtype)
        smooth[...] = self.smoothing / channels
        np.put_along_axis(smooth, channel[:, None], 1 - self.smoothing + self.smoothing / channels, axis=1)
        smooth *= self.class_weight
        return smooth, coefficient, ignored


class _Dense:
    """Targets of the scores' shape: distributions, or multi-label with M non-zero entries, which weigh 1 / M each."""

    def __init__(self, params, layout, dtype, labels, weights, mode):
        self.params, self.layout, self.dtype, self.labels, self.mode = params, layout, dtype, labels, mode
        self.class_weight = per_class("class_weight", params["class_weight"], layout.channels, dtype)
        self.weights = weights
        self.count = 0

    def block(self, block):
        t, ignored_elements = read_dense(self.labels, self.layout, block, self.dtype, self.params["ignore_label"])
        ignored = np.zeros((t.shape[0], t.shape[2]), bool) if ignored_elements is None else ignored_elements.all(axis=1)
        coefficient = np.ones(ignored.shape) if self.weights is None else self.weights[block].astype(np.float64)
        number = None
        if self.params["target"] == "multi_label":
            number = np.count_nonzero(t, axis=1)
            coefficient /= np.maximum(number, 1)
        weighted = t if self.class_weight is None else t * self.class_weight
        self.count += self._count(t, weighted, coefficient, ignored)
        if self.params["label_smoothing"]:
            weighted = self._smoothed(t, number, ignored_elements)
        return weighted, coefficient, ignored

    def _smoothed(self, t, number, ignored_elements):
        epsilon = self.params["label_smoothing"]
        # For multi-label it is t / M that is smoothed; the 1 / M is in the coefficient.
        uniform = epsilon / t.shape[1] * (1.0 if number is None else number[:, None])
        smooth = t * (1 - epsilon)
        smooth += uniform
        if ignored_elements is not None:
            smooth[ignored_elements] = 0
        if self.class_weight is not None:
            smooth *= self.class_weight
        return smooth

    def _count(self, t, weighted, coefficient, ignored):
        if self.mode == "VALID":
            return ignored.size - np.count_nonzero(ignored)
        if self.mode == "WEIGHT":
            return float((weighted.sum(axis=1, dtype=np.float64) * coefficient).sum())
        if self.mode == "POSITIVES" and self.params["target"] == "multi_label":
            return np.count_nonzero(t)
        if self.mode == "POSITIVES":
            foreground = t > 0
            if self.params["background_label"] is not None:
                foreground[:, self.params["background_label"]] = False
            return np.count_nonzero(foreground.any(axis=1))
        return 0


class OnnxTarget:
    """The same in ONNX: values of the scores' rank, with 1 channel where they hold one number per position.

    ``channel`` is the labelled channel of an index target (else None), ``values`` the weight of each channel of another
    (else None), ``coefficient`` a factor of each position's loss, ``factor`` the scalar 1 / divisor. The labels are not
    checked: what is out of range is undefined in the graph.
    """

    def __init__(self, op, params, scores, labels, weights, scale=None):
        self.op, self.params, self.scores = op, params, scores
        shape = op.shape(scores)
        self.axis = params["axis"] % len(shape)
        self.channels = shape[self.axis]
        if isinstance(self.channels, str):
            raise ShapeError(f"the scores {shape} cannot be exported with axis {self.axis}: that dim must be a number")
        self.position_dims = shape[: self.axis] + (1,) + shape[self.axis + 1 :]
        self.mode = normalization.mode(params, "VALID")
        self.weights = None if weights is None else op.reshape(weights, self.position_dims)
        self.channel = self.values = None
        if params.get("target", "index") == "index":
            count = self._read_index(op.reshape(labels, self.position_dims), scale)
        else:
            count = self._read_dense(labels)
        self.factor = normalization.onnx_factor(op, self.mode, count)

    def per_class(self, values):
        """A list of numbers, one per class, as an array that broadcasts with the scores."""
        return np.reshape(values, (-1,) + (1,) * (len(self.op.shape(self.scores)) - self.axis - 1))

    def of_class(self, values):
        """Each position's entry of a list of numbers, one per class."""
        return self.op.Gather(self.op.constant(np.asarray(values, np.float64)), self.channel)

    def _read_index(self, labels, scale):
        op, background, class_weight = self.op, self.params["background_label"], self.params["class_weight"]
        label = op.cast(labels, "int64")
        counted = None
        if self.params["ignore_label"] is not None:
            counted = op.Not(op.Equal(label, self.params["ignore_label"]))
            label = op.Where(counted, label, 0)
        self.channel = label
        self.is_background = None if background is None else op.Equal(label, background)
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
            foreground = None if background is None else op.cast(op.Not(self.is_background), self.scores)
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
            number = op.ReduceSum(op.cast(op.Not(op.Equal(t, 0)), self.scores), axis, keepdims=1)
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
        return self._count(None, None) if values is None else self.op.ReduceSum(values, keepdims=0)


def onnx_loss(op, target, losses):
    """The loss, of shape [1], from the losses of the positions."""
    total = op.ReduceSum(product(op, losses, target.coefficient), keepdims=0)
    return op.reshape(op.Min(product(op, total, target.factor), HIGHEST), [1])
