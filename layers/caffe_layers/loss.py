"""What all losses share: from arrays to (loss, gradient), and from blobs to arrays.

A loss layer declares its parameters and a function ``evaluate``; this file makes of it the ``reshape``, ``forward`` and
``backward`` that Caffe calls, and functional.py the function of arrays.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from caffe_layers.blocks import Workspace, run
from caffe_layers.layer import TEST, TRAIN, LayerError, ParameterError, PluginLayer, naming
from caffe_layers.params import INTEGER, WEIGHTS, Parameter, or_null
from caffe_layers.targets import Layout, check_bottoms, per_class, places_of

AXIS = Parameter("axis", INTEGER, 1, "the axis of the channels; negative counts from the last")

CLASS_WEIGHT = Parameter("class_weight", or_null(WEIGHTS), None, "multiplies each class's term")


def ignore_label(what):
    return Parameter("ignore_label", or_null(INTEGER), None, f"{what} with this label count for nothing")


class LossLayer(PluginLayer):
    """Base of the losses: bottoms scores, labels and optionally weights; tops the loss and optionally probabilities.

    The second top takes no part in the gradient, as in Caffe.
    """

    bottoms = ("scores", "labels", "[weights]")
    tops: tuple[str, ...] = ("loss", "[probabilities]")
    family = ""
    """"softmax", "sigmoid", "probabilities": the losses of a family are one formula (cross-entropy, or focal loss) with
    different parameters. The referee of caffe_tools has that formula, and what graphs get wrong in it."""
    default_normalization = "VALID"
    scores_are_probabilities = False
    takes_weights_per_element = False
    takes_targets_of_other_shape = False
    background_has_a_channel = True
    _gradient: Any = None

    @classmethod
    def evaluate(cls, params, arrays, workspace):
        """The loss; the gradient and the probabilities are written where ``arrays`` has them. Raises LabelError."""
        raise NotImplementedError

    @classmethod
    def layout(cls, params, scores, labels, weights=None):
        """The scores' layout. Raises ShapeError or ParameterError where shapes and parameters do not fit."""
        layout = Layout.of(scores, params["axis"])
        for parameter in cls.parameters:
            if parameter.per_class:
                per_class(parameter.name, params[parameter.name], layout.channels, np.float64)
        target = params.get("target", "index")
        background, labels_end = params.get("background_label"), layout.channels + (not cls.background_has_a_channel)
        if background is not None and background >= labels_end and target != "multi_label":
            raise ParameterError(f"background_label is {background}, but the labels are 0 to {labels_end - 1}")
        check_bottoms(layout, target, labels, weights, cls.takes_weights_per_element, cls.takes_targets_of_other_shape)
        return layout

    def reshape(self, bottom, top):
        with naming(type(self).__name__):
            shapes = [tuple(bottom[i].shape) for i in range(len(bottom))]  # Caffe's vectors cannot be iterated
            self._layout = self.layout(self.params, *shapes)
        self._gradient_is_there = False
        if self._gradient is None or self._gradient.shape != shapes[0]:
            self._gradient = np.empty(shapes[0], bottom[0].data.dtype)
            self._workspace = Workspace()
        top[0].reshape(1)
        if len(top) > 1:
            top[1].reshape(*shapes[0])

    def forward(self, bottom, top):
        probabilities = top[1].data if len(top) > 1 else None
        loss = self._evaluate(bottom, getattr(self, "phase", TRAIN) != TEST, probabilities)
        # A finite loss stays finite, though it may be beyond what the top can hold.
        limit = float(np.finfo(top[0].data.dtype).max)
        top[0].data[...] = min(loss, limit) if math.isfinite(loss) else loss

    def backward(self, top, propagate_down, bottom):
        with naming(type(self).__name__):
            for index in range(1, len(bottom)):
                if propagate_down[index]:
                    raise LayerError(
                        f"bottom[{index}] ({self.bottoms[index].strip('[]')}) has no gradient: set propagate_down:"
                        " false for it, and remove force_backward from the net, which asks every Python layer for all"
                        " of them"
                    )
        if propagate_down[0]:
            if not self._gradient_is_there:
                self._evaluate(bottom, True, None)
            scaled(self._layout, self._workspace, self._gradient, float(top[0].diff.reshape(-1)[0]), bottom[0].diff)

    def allow_force_backward(self, bottom_index):
        """Whether a net's ``force_backward`` asks for a gradient toward this bottom, as Caffe's C++ losses say it.

        Caffe does not ask its Python layers, and so asks them for all of them; who runs them without Caffe can.
        """
        return bottom_index == 0

    def holds(self, index):
        if index == 0:
            return "probabilities" if self.scores_are_probabilities else None
        if index == 2:
            return "real"
        params = getattr(self, "params", None) or {one.name: one.default for one in self.parameters}
        kinds = {"index": "class index", "multi_label": "0 or 1", "distribution": "distribution"}
        return kinds[params.get("target", "index")]

    def _evaluate(self, bottom, with_gradient, probabilities):
        arrays = Arrays.of(
            self._layout,
            bottom[0].data,
            bottom[1].data,
            bottom[2].data if len(bottom) > 2 else None,
            self._gradient if with_gradient else None,
            probabilities,
        )
        with naming(type(self).__name__), np.errstate(all="ignore"):
            loss = self.evaluate(self.params, arrays, self._workspace)
        self._gradient_is_there = with_gradient
        return loss


class Arrays(namedtuple("Arrays", "layout scores labels weights gradient probabilities")):
    """What a loss is computed from, and what it is to write.

    Scores, gradient and probabilities are outer x C x inner, labels and weights as they are given. Weights, gradient
    and probabilities may be None.
    """

    @classmethod
    def of(cls, layout, scores, labels, weights, gradient, probabilities):
        view = layout.outer, layout.channels, layout.inner
        gradient = None if gradient is None else gradient.reshape(view)
        probabilities = None if probabilities is None else probabilities.reshape(view)
        return cls(layout, scores.reshape(view), labels, weights, gradient, probabilities)

    def gradient_memory(self, block, workspace):
        """Where to write a block's gradient: in the gradient, or where that is not wanted, in memory for one block."""
        if self.gradient is not None:
            return block.of(self.gradient)
        return workspace.array("gradient", block.of(self.scores).shape, self.scores.dtype)

    def place(self, block, memory, channel):
        """Where a block's elements of these channels (n x s) are in :meth:`gradient_memory`: (a flat view, places)."""
        if self.gradient is not None:
            return self.gradient.reshape(-1), self.layout.places(block, channel)
        return memory.reshape(-1), places_of(channel, self.layout.channels)


def scaled(layout, workspace, values, scale, out):
    """Write scale x values; ``out`` and ``values`` are arrays of the layout's shape."""
    values, out = layout.channelwise(values), layout.channelwise(out)

    def work(block, _):
        if scale == 1:
            np.copyto(block.of(out), block.of(values))
        else:
            np.multiply(block.of(values), scale, out=block.of(out))

    run(layout, workspace, work)


def as_scores(scores):
    """The scores as a float32 or float64 array. Raises LayerError."""
    scores = np.asarray(scores, order="C")
    if scores.dtype.kind in "iu":
        scores = scores.astype(np.float64)
    if scores.dtype.char not in "fd":
        raise LayerError(f"scores must be float32 or float64, not {scores.dtype}")
    return scores
