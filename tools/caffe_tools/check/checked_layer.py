"""A Python layer outside any net, for its gradient check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe_tools.errors import NetError
from caffe_tools.net.blob import Blobs
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.message import Message


class CheckedLayer(PythonLayer):
    """A Python layer whose learnable blobs are float64, and of which more can be had."""

    def __init__(self, spec: LayerSpec, allow_modules: Sequence[str]) -> None:
        super().__init__(spec, allow_modules)
        self._allow_modules = allow_modules
        if isinstance(getattr(self.instance, "blobs", None), Blobs):
            self.instance.blobs = Blobs(np.float64)

    def another(self) -> CheckedLayer:
        return CheckedLayer(self.spec, self._allow_modules)


def make_layer(module: str, name: str, param_str: str, allow_modules: Sequence[str]) -> CheckedLayer:
    """The Python layer as a net would make it, its learnable blobs in float64; NetError where the class is none."""
    message = Message()
    python_param = message.add("python_param", Message())
    for field, value in (("module", module), ("layer", name), ("param_str", param_str)):
        python_param.add(field, value)
    layer = CheckedLayer(LayerSpec(name=name, type="Python", phase="TRAIN", message=message), allow_modules)
    missing = [method for method in ("setup", "reshape", "forward", "backward") if not hasattr(layer.instance, method)]
    if missing:
        raise NetError(f"{module}:{name} is no Caffe layer: it has no {', '.join(missing)}")
    return layer
