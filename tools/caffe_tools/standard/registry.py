"""The table of standard Caffe layer types, filled by the files beside this one.

A layer type is one function, named after the type. It gets the graph builder ``op``, the ``layer`` it is built for and
the bottoms' values, and returns the tops' values:

    @layer_type("ReLU", relu_param={"negative_slope": Float(0.0)})
    def relu(op, layer, x):
        return op.Relu(x)

The keyword arguments of the decorator declare the messages that the type reads; ``layer.relu_param.negative_slope`` is
then a value of that type, with Caffe's default where the prototxt is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from caffe_tools.prototxt.fields import Field
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM


@dataclass(frozen=True)
class LayerType:
    """A standard layer type. ``bottoms`` and ``tops`` are the least and the greatest number of blobs (None: any)."""

    name: str
    function: Callable[..., Any]
    messages: Mapping[str, Mapping[str, Field]]
    bottoms: tuple[int, int | None]
    tops: tuple[int, int | None]
    is_loss: bool = False
    is_source: bool = False
    labels: Mapping[int, str] = field(default_factory=dict)
    """Bottoms that never get a gradient (Caffe's AllowForceBackward is false, or its Backward refuses them), with what
    they hold: CLASS_INDEX, BINARY or REAL."""


CLASS_INDEX, BINARY, REAL = "class index", "0 or 1", "real"
"""What a label bottom holds."""

TYPES: dict[str, LayerType] = {}


def layer_type(
    name: str,
    *,
    bottoms: int | tuple[int, int | None] = 1,
    tops: int | tuple[int, int | None] = 1,
    is_loss: bool = False,
    is_source: bool = False,
    labels: Mapping[int, str] | None = None,
    **messages: Mapping[str, Field],
) -> Callable[[Callable], Callable]:
    """Register the function below as the layer type ``name``."""

    def register(function: Callable) -> Callable:
        TYPES[name] = LayerType(
            name, function, messages, as_range(bottoms), as_range(tops), is_loss, is_source, labels or {}
        )
        return function

    return register


def as_range(number: int | tuple[int, int | None]) -> tuple[int, int | None]:
    """The least and the greatest number, of which one number is both."""
    return number if isinstance(number, tuple) else (number, number)


PYTHON_TYPES: dict[tuple[str, str], LayerType] = {}
"""(module, class) → the layer type."""


def python_layer_type(
    module: str, name: str, *, bottoms: int | tuple[int, int | None] = 1, tops: int | tuple[int, int | None] = 1
) -> Callable[[Callable], Callable]:
    """Register the function below as the Python layer ``name`` of ``module``."""

    def register(function: Callable) -> Callable:
        messages = {"python_param": PYTHON_PARAM}
        PYTHON_TYPES[module, name] = LayerType(
            f"{module}.{name}", function, messages, as_range(bottoms), as_range(tops)
        )
        return function

    return register


def known_type(spec: LayerSpec) -> LayerType | None:
    """The layer type of ``spec``: a standard one, or a well-known Python layer; None where it is neither."""
    if spec.type != "Python":
        return TYPES.get(spec.type)
    p = spec.read("python_param", PYTHON_PARAM)
    return PYTHON_TYPES.get((p.module, p.layer))
