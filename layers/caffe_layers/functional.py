"""The layers' formulas as pure functions of arrays: no blobs, no Caffe, no state.

``softmax`` and ``sigmoid`` give an array. The losses are ``f(scores, labels, weights=None, *, <parameters of the
layer>)`` and give ``(loss, gradient)``: a float, and an array of the scores' shape and dtype. Inputs are never written.

A loss's function is made from its layer: from what that declares and from its docstring.
"""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_layers import params as param_str
from caffe_layers.blocks import Workspace
from caffe_layers.catalogue import LAYERS
from caffe_layers.layer import LayerError, named
from caffe_layers.loss import Arrays, LossLayer, as_scores


def _function_of(layer):
    """The layer's function of arrays, or None where it has none."""
    if not issubclass(layer, LossLayer):
        return layer.function

    def function(scores, labels, weights=None, **keywords):
        return _loss_and_gradient(name, layer, scores, labels, weights, keywords)

    name = layer.function or _snake_case(layer.__name__[: -len("Layer")])
    function.__name__ = function.__qualname__ = name
    function.__signature__ = _signature(layer)  # type: ignore[attr-defined]
    function.__doc__ = _description(layer)
    return function


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _signature(layer):
    signature = inspect.signature(lambda scores, labels, weights=None: None)
    keywords = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default) for one in layer.parameters
    ]
    return signature.replace(parameters=[*signature.parameters.values(), *keywords])


def _description(layer):
    summary, _, rest = (inspect.getdoc(layer) or "").partition("\n\n")
    keywords = "\n".join(f"    {one.name} ({one.kind}; {one.default!r}): {one.doc}" for one in layer.parameters)
    return f"""{summary}

Gives (loss, gradient): a float, and an array of the scores' shape and dtype. ``scores`` are float32 or float64;
``labels`` and ``weights`` of any real dtype. Raises ShapeError, LabelError, ParameterError.

Keywords, those of :class:`{layer.__name__}`:
{keywords}

{rest}"""


def _loss_and_gradient(name, layer, scores, labels, weights, keywords):
    try:
        with np.errstate(all="ignore"):
            scores = as_scores(scores)
            labels = np.asarray(labels, order="C")
            weights = None if weights is None else np.asarray(weights, order="C")
            shapes = scores.shape, labels.shape, None if weights is None else weights.shape
            try:
                params, layout = _checked(layer, shapes, **keywords)
            except TypeError:  # a list cannot be looked up
                params, layout = _checked.__wrapped__(layer, shapes, **keywords)
            gradient = np.empty(scores.shape, scores.dtype)
            arrays = Arrays.of(layout, scores, labels, weights, gradient, None)
            return layer.evaluate(params, arrays, Workspace()), gradient
    except (LayerError, param_str.ValueRefused) as error:  # rather than ``with naming``, which small calls would feel
        raise named(name, error) from None


@lru_cache(maxsize=64, typed=True)
def _checked(layer, shapes, **keywords):
    """The effective parameters and the layout: small calls are mostly these checks, so that repeated ones skip them."""
    params = param_str.complete(keywords, layer.parameters)
    return params, layer.layout(params, *shapes)


FUNCTIONS = {layer: function for layer, function in ((layer, _function_of(layer)) for layer in LAYERS) if function}
"""The layers that have a function, and it."""

globals().update({function.__name__: function for function in FUNCTIONS.values()})
__all__ = sorted(function.__name__ for function in FUNCTIONS.values())

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
