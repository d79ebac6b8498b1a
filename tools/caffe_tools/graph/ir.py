"""onnx_ir, imported when something of it is first used: ``from caffe_tools.graph import ir``.

It takes half a second, and the definitions of the layer types (which ``caffe-layers layers`` lists) only name it in
their annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_ir import *  # noqa: F403 (its names are what this module is for)
else:

    def __getattr__(name: str) -> object:
        import onnx_ir

        return globals().setdefault(name, getattr(onnx_ir, name))
