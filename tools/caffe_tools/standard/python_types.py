"""The table of well-known Python layers: those of published nets, known by module and class without being imported.

``type: "Python"`` with such a module and class is a standard layer like any other. One is added as a standard type is,
as a function of its own:

    @python_layer_type("rpn.proposal_layer", "ProposalLayer", bottoms=3, tops=(1, 2))
    def proposal_layer(op, layer, scores, deltas, image): …

``param_values(layer)`` reads its ``param_str``. A user who allows the module (``--allow-module``) gets the module's own
code in the embedded net instead; an export, which has no other way, still takes the function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from caffe_layers import params
from caffe_tools.prototxt.messages import PYTHON_PARAM
from caffe_tools.prototxt.net_spec import LayerSpec
from caffe_tools.standard.registry import TYPES, Layer, LayerType, as_range, read_message

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
    p = read_message(spec, "python_param", PYTHON_PARAM)
    return PYTHON_TYPES.get((p.module, p.layer))


def param_values(layer: Layer, kinds: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The values that ``param_str`` gives; NetError where one of ``kinds`` (key → test) is not of its kind.

    Keys that ``kinds`` does not name pass: the layers in the wild ignore what they do not know.
    """
    try:
        values = params.parse(layer.python_param.param_str)
    except params.ValueRefused as error:
        raise layer.error(str(error), "python_param") from None
    for key, is_right in kinds.items():
        if key in values and not is_right(values[key]):
            raise layer.error(f"param_str: {key} is {values[key]!r}, which is not what it takes", "python_param")
    return values
