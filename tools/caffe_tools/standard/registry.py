"""The table of Caffe layer types, filled by the chapters beside this file.

A layer type is one function, named after the type. It gets the graph builder ``op``, the ``layer`` it is built for and
the bottoms' values, and returns the tops' values:

    @layer_type("ReLU", relu_param={"negative_slope": Float(0.0)})
    def relu(op, layer, x):
        return op.Relu(x)

The keyword arguments of the decorator declare the messages that the type reads; ``layer.relu_param.negative_slope`` is
then a value of that type, with Caffe's default where the prototxt is silent. Whatever the rest of the tools must know
of a type is declared here too: nobody else compares names of types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caffe_tools.errors import CaffeToolsError
from caffe_tools.prototxt.fields import Field
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.messages import PYTHON_PARAM

CLASS_INDEX, BINARY, REAL = "class index", "0 or 1", "real"
"""What a label bottom holds."""
DISTRIBUTION, PROBABILITIES = "distribution", "probabilities"
"""What else a bottom may hold, for which not any number will do."""

Number = int | tuple[int, int | None]
"""How many blobs: exactly so many, or the least and the greatest number (None: any)."""


@dataclass(frozen=True)
class LayerType:
    """A layer type. ``bottoms`` and ``tops`` are the least and the greatest number of blobs (None: any)."""

    name: str
    function: Callable[..., Any]
    messages: Mapping[str, Mapping[str, Field]]
    bottoms: tuple[int, int | None]
    tops: tuple[int, int | None]
    is_loss: bool = False
    is_source: bool = False
    labels: Mapping[int, str] = field(default_factory=dict)
    """Bottoms that never get a gradient (Caffe's AllowForceBackward is false, or its Backward refuses them), with what
    they hold: CLASS_INDEX, BINARY or REAL. Which class indices are valid, the function says (``expect_labels``)."""
    probabilities: int | None = None
    """The bottom that holds probabilities."""
    moves: bool = False
    """Whether its tops hold the elements of its bottoms as they are, at other places."""
    regions: int | None = None
    """The bottom that has a row for each region, whose number is not the batch size."""
    output_axis: Callable[[Any], int] | None = None
    """For a product with a weight (blob 0) and maybe a bias (blob 1), which can take in the per-channel layers that
    follow it: the weight's axis that counts outputs."""
    per_channel: Callable[[Any, Sequence[Any]], tuple[Any, Any] | None] | None = None
    """For a layer that may do no more than multiply and shift each channel (axis 1) by stored numbers: from the layer
    and its learnable blobs (factor, summand); None where this one does more."""

    def holds(self, index: int) -> str | None:
        """What bottom ``index`` holds, None where any number will do."""
        return PROBABILITIES if index == self.probabilities else self.labels.get(index)


TYPES: dict[str, LayerType] = {}
"""The built-in types."""
PYTHON_TYPES: dict[tuple[str, str], LayerType] = {}
"""The built-in Python layers: (module, class) → the layer type."""
TAUGHT: dict[str | tuple[str, str], LayerType] = {}
"""What users teach, types and Python layers. They come first, and leave the tables of what is built in as they are.

As with Python's imports, what one net's modules teach is there for every net of the process."""


def layer_type(
    name: str,
    *,
    bottoms: Number = 1,
    tops: Number = 1,
    is_loss: bool = False,
    is_source: bool = False,
    labels: Mapping[int, str] | None = None,
    probabilities: int | None = None,
    moves: bool = False,
    regions: int | None = None,
    output_axis: Callable[[Any], int] | None = None,
    per_channel: Callable[[Any, Sequence[Any]], tuple[Any, Any] | None] | None = None,
    override: bool = False,
    **messages: Mapping[str, Field],
) -> Callable[[Callable], Callable]:
    """Register the function below as the layer type ``name``.

    Raises CaffeToolsError where another function has that name, unless ``override`` says that it shall be replaced.
    """

    def register(function: Callable) -> Callable:
        kind = LayerType(
            name,
            function,
            messages,
            _as_range(bottoms),
            _as_range(tops),
            is_loss,
            is_source,
            labels or {},
            probabilities,
            moves,
            regions,
            output_axis,
            per_channel,
        )
        _add(TYPES, name, kind, override)
        return function

    return register


def python_layer_type(
    module: str, name: str, *, bottoms: Number = 1, tops: Number = 1, override: bool = False
) -> Callable[[Callable], Callable]:
    """Register the function below as the Python layer ``name`` of ``module``; errors are those of ``layer_type``."""

    def register(function: Callable) -> Callable:
        messages = {"python_param": PYTHON_PARAM}
        kind = LayerType(f"{module}.{name}", function, messages, _as_range(bottoms), _as_range(tops))
        _add(PYTHON_TYPES, (module, name), kind, override)
        return function

    return register


def _as_range(number: Number) -> tuple[int, int | None]:
    return number if isinstance(number, tuple) else (number, number)


def _add(built_in: dict, key: str | tuple[str, str], kind: LayerType, override: bool) -> None:
    """Put ``kind`` into the table it belongs to. A function defined again (its module is reloaded, a notebook's cell
    is run again) replaces itself."""
    before = TAUGHT.get(key) or built_in.get(key)
    if before is not None and not override and _place(before.function) != _place(kind.function):
        raise CaffeToolsError(
            f"layer type {kind.name!r} is registered already, by {_place(before.function)}: give override=True to"
            f" replace it by {_place(kind.function)}"
        )
    table = built_in if kind.function.__module__.startswith("caffe_tools.") else TAUGHT
    table[key] = kind


def _place(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def known_type(spec: LayerSpec) -> LayerType | None:
    """The layer type of ``spec``: a Caffe type, or a Python layer of the table; None where it is neither."""
    if spec.type != "Python":
        return TAUGHT.get(spec.type) or TYPES.get(spec.type)
    p = spec.read("python_param", PYTHON_PARAM)
    return TAUGHT.get((p.module, p.layer)) or PYTHON_TYPES.get((p.module, p.layer))
