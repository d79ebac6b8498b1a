"""Losses with one term per element: targets, the sum over elements and its normalisation.

The sigmoid losses differ in their :class:`Formulas`, small functions of a block of n x C x s elements.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from caffe_layers import normalization
from caffe_layers.blocks import Workspace, flat_index, run
from caffe_layers.elementwise.targets import MANY, DenseTarget, IndexTarget, product_of
from caffe_layers.loss import AXIS, CLASS_WEIGHT, LossLayer, ignore_label
from caffe_layers.params import BELOW_ONE, INTEGER_FROM_0, WEIGHT_OR_WEIGHTS, Parameter, choice, or_null
from caffe_layers.sigmoid import write_sigmoid
from caffe_layers.softmax import sum_over_channels
from caffe_layers.targets import per_class

LARGE = 80.0
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


class ElementwiseLoss(LossLayer):
    """What the layers of these losses declare alike."""

    parameters = PARAMETERS
    default_normalization = "BATCH_SIZE"
    takes_weights_per_element = True
    takes_targets_of_other_shape = True
    background_has_a_channel = False


class Formulas(namedtuple("Formulas", "no_terms terms no_sum is_linear dtype")):
    """What a loss is, in two functions and what is quicker where it will do.

    ``no_terms(x, weight, losses, gradient, workspace) -> losses``
        the terms of the target t = 0, written to ``losses``, which may be x. That of t = 1 is the same at -x, so these
        serve all targets that say yes or no, as long as no exp(x) comes near the ends of float32;
    ``terms(distance, u, sides, weight, gradient, workspace) -> losses``
        the terms of any t in [0, 1] at any x; it may write to distance and u. They depend on x and t by way of
        ``distance``, which is |x|, and u, which is t where x < 0 and 1 - t elsewhere: how far the target is from the
        side that the score is on. In these nothing overflows or cancels. ``sides`` are u and 1 - u, the one of them
        that is t multiplied by pos_weight; None where there is no pos_weight.

    The losses are multiplied by ``weight`` (an array that broadcasts with x, or a number), and so is the derivative, by
    x or by |x|, that is written to ``gradient``.

    ``no_sum(x, places, gradient, workspace) -> float``
        the sum of the losses of t = 0, of weight 1, for all elements but those at the flat ``places`` (None: for all),
        with errors that are lost in a sum of many losses of like size. Not a finite number where they are not of like
        size, or the scores too large for it. If the loss ``is_linear``, that of any t is that of 0 minus t x, so that
        this serves soft targets too.

    All is computed in ``dtype``.
    """


def evaluate(params, arrays, workspace, formulas, alpha=None, class_factor=None, compiled=None):
    """The loss, as ``LossLayer.evaluate``.

    ``compiled(x, t, pos_weight, weight, alpha, gradient, workspace)``, where it is given, does blocks of ordinary
    numbers: it gives the sum of their losses, or what is not finite.

    ``alpha`` (or None) weighs positive terms, and 1 - alpha negative ones. ``class_factor`` (C numbers, or None)
    multiplies the terms of each class as class_weight does, but does not count for WEIGHT.
    """
    layout, mode = arrays.layout, normalization.mode(params, "BATCH_SIZE")
    dtype = np.dtype(formulas.dtype)
    read = IndexTarget if params["target"] == "index" else DenseTarget
    target = read(params, arrays, dtype)
    known = {"FULL": layout.positions * layout.channels, "BATCH_SIZE": layout.shape[0], "NONE": 1}
    factor = float(normalization.factor(mode, known[mode] if mode in known else target.count(mode, workspace)))
    class_factor = per_class("alpha", class_factor, layout.channels, dtype)
    pos_weight = per_class("pos_weight", params["pos_weight"], layout.channels, dtype)

    def work(block, own):
        x, result = block.of(arrays.scores), arrays.gradient_memory(block, own)
        if arrays.probabilities is not None:
            write_sigmoid(x, block.of(arrays.probabilities))
        if compiled is not None:
            t, ignored = target.unchecked(block, own)
            weight = product_of(factor, target.class_weight, class_factor, target.weights_of(block))
            if ignored is not None:
                weight = weight * ~ignored
            total = compiled(x, t, pos_weight, weight, alpha, result, own)
            if math.isfinite(total):
                return total
        gradient = result if x.dtype == dtype else own.array("gradient", x.shape, dtype)
        x = x.astype(dtype, copy=False)
        t, yes, ignored = target.read(block, own)
        weight = product_of(factor, target.class_weight, class_factor, target.weights_of(block))
        total = None
        if yes is None:
            if formulas.is_linear and ignored is alpha is pos_weight is None and isinstance(weight, float):
                total = _linear(x, t, weight, formulas, gradient, own)
        else:
            of_no = weight if alpha is None else weight * (1 - alpha)
            of_yes = product_of(weight, 1 if alpha is None else alpha, pos_weight)
            answers, where = (_many_yeses, t) if yes is MANY else (_few_yeses, yes)
            total = answers(x, where, of_no, of_yes, ignored, formulas, gradient, own)
        if total is None:
            total = _any_target(x, t, alpha, pos_weight, weight, ignored, formulas, gradient, own)
        if gradient is not result:
            np.copyto(result, gradient, casting="same_kind")
        return total

    arrays_kept = 4 if target.seems_yes_or_no() else 3 if formulas.is_linear else 8
    return sum(run(layout, workspace, work, arrays_kept, compiled is not None), 0.0)


_MANY, ALIKE = 4096, 16
"""Of more losses than these it is asked whether they are of like size: none more than one in ALIKE of their sum."""


def _few_yeses(x, places, of_no, of_yes, ignored, formulas, gradient, workspace):
    """The sum of the losses of targets that are 1 at ``places`` and 0 elsewhere: of 0 everywhere, then of those.

    None where scores are too large.
    """
    flat, index = flat_index(x, places)
    opposite = -flat[index]
    if not np.maximum.reduce(opposite, initial=0) < LARGE:
        return None
    if not isinstance(of_yes, float):
        of_yes = np.broadcast_to(of_yes, x.shape)[np.unravel_index(places, x.shape)]
    slope = np.empty_like(opposite)
    of_places = formulas.no_terms(opposite, of_yes, opposite, slope, Workspace())
    total = math.nan
    if ignored is None and isinstance(of_no, float):
        total = formulas.no_sum(x, places, gradient, workspace) * of_no + _total(of_places)
    is_done = math.isfinite(total)
    if is_done:
        gradient *= of_no
    elif np.maximum.reduce(x, axis=None) < LARGE:
        losses = formulas.no_terms(x, of_no, workspace.array("losses", x.shape, x.dtype), gradient, workspace)
        losses.reshape(-1)[places] = of_places
    else:
        return None
    flat, index = flat_index(gradient, places)
    flat[index] = -slope
    return total if is_done else _sum(losses, ignored, gradient)


def _many_yeses(x, t, of_no, of_yes, ignored, formulas, gradient, workspace):
    """That of targets that are 0 or 1: those of 0, of scores whose sign is changed where the target is 1."""
    if not (-LARGE < np.minimum.reduce(x, axis=None) and np.maximum.reduce(x, axis=None) < LARGE):
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
    losses = formulas.no_terms(z, weight, z, gradient, workspace)
    bits = gradient.view(integer)
    np.bitwise_xor(bits, flip, out=bits)
    return _sum(losses, ignored, gradient)


def _linear(x, t, weight, formulas, gradient, workspace):
    """That of soft targets where the loss is linear in t, or None where digits would cancel."""
    of_no = formulas.no_sum(x, None, gradient, workspace)
    total = of_no - float(np.add.reduce(sum_over_channels(t, x), axis=None))
    if not of_no / 4 < total < math.inf:
        return None
    gradient -= t
    gradient *= weight
    return total * weight


def _any_target(x, t, alpha, pos_weight, weight, ignored, formulas, gradient, workspace):
    """That of targets in [0, 1], of any scores."""
    if alpha is not None:
        alpha_t = np.multiply(t, 2 * alpha - 1, out=workspace.array("weight", x.shape, x.dtype))
        alpha_t += 1 - alpha
        weight = np.multiply(alpha_t, weight, out=alpha_t)
    integer, _, sign = _BITS[x.dtype.itemsize]
    bits = x.view(integer)
    distance = np.abs(x, out=workspace.array("distance", x.shape, x.dtype))
    above = np.greater_equal(bits, 0, out=workspace.array("above", x.shape, np.dtype(bool)))
    u = np.subtract(t, above, out=workspace.array("u", x.shape, x.dtype))
    np.abs(u, out=u)
    sides = None
    if pos_weight is not None:
        sides = u * np.where(above, x.dtype.type(1), pos_weight), (1 - u) * np.where(above, pos_weight, x.dtype.type(1))
    losses = formulas.terms(distance, u, sides, weight, gradient, workspace)
    flip = np.bitwise_and(bits, sign, out=workspace.array("u", x.shape, integer))
    bits = gradient.view(integer)
    np.bitwise_xor(bits, flip, out=bits)
    return _sum(losses, ignored, gradient)


def _sum(losses, ignored, gradient):
    """The sum of the losses, to which ignored elements add nothing."""
    if ignored is not None:
        losses *= ~ignored
        gradient *= ~ignored
    total = _total(losses)
    if not math.isfinite(total):
        if ignored is not None:
            ignored = np.broadcast_to(ignored, losses.shape)
            losses[ignored] = 0
            gradient[ignored] = 0
        # pos_weight and the like may take a loss beyond what the dtype holds.
        total = float(np.minimum(losses, np.finfo(losses.dtype).max).sum(dtype=np.float64))
    return total


def _total(losses):
    """The sum, in float64 where one is so large that the others would lose their digits beside it."""
    if losses.size > _MANY:
        total = float(np.add.reduce(losses, axis=None))
        if np.maximum.reduce(losses, axis=None) <= total / ALIKE:
            return total
    return float(np.add.reduce(losses, axis=None, dtype=np.float64))
