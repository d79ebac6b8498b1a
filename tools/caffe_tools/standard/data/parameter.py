"""Parameter: a learnable blob on its own.

Source: Caffe include/caffe/layers/parameter_layer.hpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Submessage
from caffe_tools.prototxt.messages import SHAPE
from caffe_tools.standard.layer import Layer, Sharing, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("Parameter", bottoms=0, parameter_param={"shape": Submessage(SHAPE)})
def parameter(op: Builder, layer: Layer) -> ir.Value:
    """The learnable blob itself, of the shape ``shape``; zeros where no weights are given."""
    shape = tuple(layer.parameter_param.shape.dim)
    if any(dim < 0 for dim in shape):
        raise layer.error(f"its shape {dims_text(shape)} has a negative dim")
    layer.sharing = Sharing.PARAMETER
    # the blob and the top have names of their own
    return op.Identity(layer.parameter(shape))
