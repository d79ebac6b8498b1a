"""A net as another program is to run it: the layers of its phase, fed by Input layers."""

from __future__ import annotations

import numpy as np

from caffe_tools.net.keys import IN, PARAM, Arrays
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.prototxt.message import Message


def flat_net(net: Net) -> Message:
    """The layers of the net's phase alone, in today's form, with an Input in place of every layer that makes data.

    A peer that runs it sees just what this net sees, whatever the data layers would have read.
    """
    flat = Message()
    flat.add("name", net.name)
    if net.spec.force_backward:
        flat.add("force_backward", True)
    for placed in net.placed:
        spec = placed.spec
        if spec.is_inserted:
            continue
        if not makes_data(placed):
            layer = flat.add("layer", spec.message.copy())
            layer.remove("include")
            layer.remove("exclude")
            continue
        layer = flat.add("layer", Message())
        layer.add("name", spec.name)
        layer.add("type", "Input")
        for top in spec.tops:
            layer.add("top", top)
        shapes = layer.add("input_param", Message())
        for blob in placed.tops:
            shape = shapes.add("shape", Message())
            for dim in blob.shape:
                shape.add("dim", dim)
    return flat


def what_goes_in(net: Net, fed: Arrays) -> dict[str, np.ndarray]:
    """``fed``, as far as ``flat_net`` takes it: what Input layers hold, and the learnable blobs of the others."""
    made = {part for placed in net.placed if makes_data(placed) for part in placed.learnable}
    shown = {top for placed in net.placed if not makes_data(placed) for top in placed.spec.tops}
    left = {*PARAM.keyed(dict.fromkeys(made)), *IN.keyed(dict.fromkeys(shown))}
    return {key: array for key, array in fed.items() if key not in left}


def makes_data(placed: PlacedLayer) -> bool:
    """Whether it makes its tops from nothing; a Parameter layer shows its learnable blob."""
    return not placed.bottoms and not isinstance(placed.layer, StandardLayer)
