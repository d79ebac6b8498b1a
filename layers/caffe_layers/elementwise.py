"""Losses with one term per element: targets, the sum over elements and its normalisation.

The sigmoid losses differ in two small functions, each of a block of n x C x s elements:

``no_terms(x, weight, gradient, workspace) -> losses``
    the terms of the target t = 0. That of t = 1 is the same at -x, so these serve all targets that say yes or no, as
    long as no exp(x) comes near the ends of float32;
``terms(distance, u, sides, weight, gradient, workspace) -> losses``
    the terms of any t in [0, 1] at any x; it may write to distance and u. They depend on x and t by way of
    ``distance``, which is |x|, and u, which is t where x < 0 and 1 - t elsewhere: how far the target is from the side
    that the score is on. In these nothing overflows or cancels. ``sides`` are u and 1 - u, the one of them that is t
    multiplied by pos_weight; None where there is no pos_weight.

The losses are multiplied by ``weight`` (an array that broadcasts with x, or a number), and so is the derivative, by x
or by |x|, that is written to ``gradient``.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_layers import normalization
from caffe_layers.blocks import run
from caffe_layers.loss import AXIS, CLASS_WEIGHT, ignore_label
from caffe_layers.params import BELOW_ONE, INTEGER_FROM_0, WEIGHT_OR_WEIGHTS, Parameter, choice, or_null
from caffe_layers.sigmoid import write_sigmoid
from caffe_layers.targets import DenseTargets, Labels, per_class, read_weights

_LARGE = 80.0
"""exp of scores this far from 0 has all the digits of float32."""
_BITS = {4: (np.dtype(np.int32), 2, np.int32(-(2**31))), 8: (np.dtype(np.int64), 2, np.int64(-(2**63)))}
"""By size of a float: the integer that has its bits, how far left the bits of 1 reach the sign, and the sign alone."""

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


def evaluate(params, arrays, workspace, no_terms, terms, dtype, alpha=None, class_factor=None, compiled=None):
    """The loss, as ``LossLayer.evaluate``, computed in ``dtype``.

    ``compiled(x, t, pos_weight, weight, alpha, gradient, workspace)``, where it is given, does blocks of ordinary
    numbers: it gives the sum of their losses, or what is not finite.

    ``alpha`` (or None) weighs positive terms, and 1 - alpha negative ones. ``class_factor`` (C numbers, or None)
    multiplies the terms of each class as class_weight does, but does not count for WEIGHT.
    """
    layout, mode = arrays.layout, normalization.mode(params, "BATCH_SIZE")
    read = _Index if params["target"] == "index" else _Dense
    target = read(params, arrays, dtype)
    known = {"FULL": layout.positions * layout.channels, "BATCH_SIZE": layout.shape[0], "NONE": 1}
    factor = float(normalization.factor(mode, known[mode] if mode in known else target.count(mode, workspace)))
    dtype = np.dtype(dtype)
    class_factor = per_class("alpha", class_factor, layout.channels, dtype)
    pos_weight = per_class("pos_weight", params["pos_weight"], layout.channels, dtype)

    def work(block, own):
        x, result = block.of(arrays.scores), arrays.gradient_memory(block, own)
        if arrays.probabilities is not None:
            write_sigmoid(x, block.of(arrays.probabilities))
        if compiled is not None:
            t, ignored = target.unchecked(block, own)
            weight = _product(factor, target.class_weight, class_factor, target.weights_of(block))
            if ignored is not None:
                weight = weight * ~ignored
            total = compiled(x, t, pos_weight, weight, alpha, result, own)
            if math.isfinite(total):
                return total
        gradient = result if x.dtype == dtype else own.array("gradient", x.shape, dtype)
        x = x.astype(dtype, copy=False)
        t, yes_or_no, ignored = target.read(block, own)
        weight = _product(factor, target.class_weight, class_factor, target.weights_of(block))
        losses = None
        if yes_or_no:
            of_no = weight if alpha is None else weight * (1 - alpha)
            of_yes = _product(weight, 1 if alpha is None else alpha, pos_weight)
            losses = _yes_or_no(x, t, of_no, of_yes, no_terms, gradient, own)
        if losses is None:
            if alpha is not None:
                alpha_t = np.multiply(t, 2 * alpha - 1, out=own.array("weight", x.shape, dtype))
                alpha_t += 1 - alpha
                weight = np.multiply(alpha_t, weight, out=alpha_t)
            losses = _any_target(x, t, pos_weight, weight, terms, gradient, own)
        total = _sum(losses, ignored, gradient)
        if gradient is not result:
            np.copyto(result, gradient, casting="same_kind")
        return total

    return sum(run(layout, workspace, work, compiled is not None), 0.0)


def _is_yes_or_no(t, workspace):
    first = t[:1, :8, :8]
    if not ((first == 0) | (first == 1)).all():  # a quick no
        return False
    mask = workspace.array("yes", t.shape, np.dtype(bool))
    number = np.count_nonzero(np.equal(t, 1, out=mask))
    return np.count_nonzero(np.not_equal(t, 0, out=mask)) == number


def _yes_or_no(x, t, of_no, of_yes, no_terms, gradient, workspace):
    """The losses of targets that are 0 or 1, or None where the scores are too large for :func:`evaluate`'s no_terms."""
    if not (-_LARGE < np.minimum.reduce(x, axis=None) and np.maximum.reduce(x, axis=None) < _LARGE):
        return None
    integer, shift, sign = _BITS[x.dtype.itemsize]
    # The bits of 1 and of 0 differ in some that are next to the sign's.
    flip = np.left_shift(t.view(integer), shift, out=workspace.array("flip", x.shape, integer))
    flip &= sign
    z = workspace.array("z", x.shape, x.dtype)
    np.bitwise_xor(x.view(integer), flip, out=z.view(integer))
    weight = of_no
    if of_yes is not of_no:
        weight = np.multiply(t, of_yes - of_no, out=workspace.array("weight", x.shape, x.dtype))
        weight += of_no
    losses = no_terms(z, weight, gradient, workspace)
    bits = gradient.view(integer)
    np.bitwise_xor(bits, flip, out=bits)
    return losses


def _any_target(x, t, pos_weight, weight, terms, gradient, workspace):
    """The losses of targets in [0, 1], of any scores."""
    integer, _, sign = _BITS[x.dtype.itemsize]
    bits = x.view(integer)
    distance = np.abs(x, out=workspace.array("distance", x.shape, x.dtype))
    above = np.greater_equal(bits, 0, out=workspace.array("above", x.shape, np.dtype(bool)))
    u = np.subtract(t, above, out=workspace.array("u", x.shape, x.dtype))
    np.abs(u, out=u)
    sides = None
    if pos_weight is not None:
        sides = u * np.where(above, x.dtype.type(1), pos_weight), (1 - u) * np.where(above, pos_weight, x.dtype.type(1))
    losses = terms(distance, u, sides, weight, gradient, workspace)
    flip = np.bitwise_and(bits, sign, out=workspace.array("u", x.shape, integer))
    bits = gradient.view(integer)
    np.bitwise_xor(bits, flip, out=bits)
    return losses


def _sum(losses, ignored, gradient):
    """The sum of the losses, to which ignored elements add nothing."""
    if ignored is not None:
        losses *= ~ignored
        gradient *= ~ignored
    total = float(np.add.reduce(losses, axis=None))
    if not math.isfinite(total):
        if ignored is not None:
            ignored = np.broadcast_to(ignored, losses.shape)
            losses[ignored] = 0
            gradient[ignored] = 0
        # pos_weight and the like may take a loss beyond what the dtype holds.
        total = float(np.minimum(losses, np.finfo(losses.dtype).max).sum(dtype=np.float64))
    return total


def _product(*values):
    """The product of those that are not None."""
    result = None
    for value in values:
        if value is not None:
            result = value if result is None else result * value
    return result


class _Index:
    """Labels, one per position: t is 1 in the channel that the label names and 0 in the others."""

    def __init__(self, params, arrays, dtype):
        self.layout, self.dtype = arrays.layout, dtype
        self.labels = Labels(arrays.labels, self.layout, params["ignore_label"], params["background_label"], False)
        self.class_weight = per_class("class_weight", params["class_weight"], self.layout.channels, self.dtype)
        self.weights = None if arrays.weights is None else self.layout.positionwise(read_weights(arrays.weights))
        self.no, self.yes = params["label_smoothing"] / 2, 1 - params["label_smoothing"] / 2

    def read(self, block, workspace):
        """(t, whether it is 0 or 1 everywhere, the mask of ignored elements or None)"""
        label, ignored = self.labels.read(block)
        channel, named = self.labels.channels(label, ignored)
        n, s = label.shape
        t = workspace.array("target", (n, self.layout.channels, s), self.dtype)
        t[...] = self.no
        places = (np.arange(n)[:, None] * self.layout.channels + channel) * s + np.arange(s)
        t.reshape(-1)[places if named is None else places[named]] = self.yes
        return t, self.no == 0, None if ignored is None else ignored[:, None]

    def unchecked(self, block, workspace):
        """(t, the mask of ignored elements or None)"""
        t, _, ignored = self.read(block, workspace)
        return t, ignored

    def weights_of(self, block):
        return None if self.weights is None else block.of_positions(self.weights)[:, None].astype(self.dtype)

    def count(self, mode, workspace):
        if mode == "VALID":
            return self.labels.number_counted(workspace) * self.layout.channels
        if mode == "POSITIVES":
            return self.labels.number_of_foreground(workspace)
        class_weight = np.ones(self.layout.channels) if self.class_weight is None else self.class_weight[:, 0]

        def weight(block, _):
            label, ignored = self.labels.read(block)
            channel, named = self.labels.channels(label, ignored)
            weight = class_weight.astype(np.float64).take(channel)
            if named is not None:
                weight *= named
            return float(_product(weight, None if self.weights is None else block.of_positions(self.weights)).sum())

        return sum(run(self.layout, workspace, weight))


class _Dense:
    """Targets in [0, 1], one per element."""

    def __init__(self, params, arrays, dtype):
        self.layout, self.dtype, self.params = arrays.layout, dtype, params
        self.targets = DenseTargets(arrays.labels, self.layout, self.dtype, params["ignore_label"], high=1)
        self.class_weight = per_class("class_weight", params["class_weight"], self.layout.channels, self.dtype)
        self.weights = None if arrays.weights is None else self._by_element(read_weights(arrays.weights))

    def _by_element(self, weights):
        """Weights as outer x C x inner, or outer x 1 x inner where there is one per position."""
        if weights.size == self.layout.positions:
            return self.layout.positionwise(weights)[:, None]
        return self.layout.channelwise(weights)

    def read(self, block, workspace):
        """(t, whether it is 0 or 1 everywhere, the mask of ignored elements or None)"""
        epsilon = self.params["label_smoothing"]
        if self.params["ignore_label"] is None and not epsilon:
            t = self.targets.unchecked(block)
            if t is not None and _is_yes_or_no(t, workspace):
                return t, True, None
        t, ignored = self.targets.read(block)
        if epsilon:
            return t * t.dtype.type(1 - epsilon) + t.dtype.type(epsilon / 2), False, ignored
        return t, _is_yes_or_no(t, workspace), ignored

    def unchecked(self, block, workspace):
        """(t, the mask of ignored elements or None); where nothing is done to t, its range has not been checked."""
        if self.params["ignore_label"] is None and not self.params["label_smoothing"]:
            t = self.targets.unchecked(block)
            if t is not None:
                return t, None
        t, _, ignored = self.read(block, workspace)
        return t, ignored

    def weights_of(self, block):
        return None if self.weights is None else block.of(self.weights).astype(self.dtype)

    def count(self, mode, workspace):
        if mode == "VALID" and self.params["ignore_label"] is None:
            return self.layout.positions * self.layout.channels

        def part(block, _):
            t, ignored = self.targets.read(block)
            if mode == "VALID":
                return t.size - (0 if ignored is None else np.count_nonzero(ignored))
            if mode == "POSITIVES":
                return np.count_nonzero(t != 0)
            return float(_product(t, self.class_weight, self.weights_of(block)).sum(dtype=np.float64))

        return sum(run(self.layout, workspace, part))
