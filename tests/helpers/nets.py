"""Small nets for tests: written as text, filled with numbers that repeat."""

from __future__ import annotations

import numpy as np

from caffe_tools import prototxt
from caffe_tools.net.net import Net


def net_of(text: str, phase: str | None = "TRAIN", **keywords) -> Net:
    return Net(prototxt.parse(text, "net.prototxt"), phase, **keywords)


def inputs(**shapes: tuple) -> str:
    """An Input layer for each blob, named after it."""
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims(shape)} }} }} }}\n'
        for name, shape in shapes.items()
    )


def layer(type_: str, name: str, bottom: str = "", top: str = "", rest: str = "") -> str:
    """A layer whose bottoms and tops are words."""
    blobs = "".join(f'bottom: "{blob}" ' for blob in bottom.split()) + "".join(f'top: "{b}" ' for b in top.split())
    return f'layer {{ name: "{name}" type: "{type_}" {blobs} {rest} }}\n'


def dims(shape: tuple) -> str:
    return " ".join(f"dim: {dim}" for dim in shape)


def fill_inputs(net: Net, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for name in net.inputs:
        net.blobs[name].data[...] = random.normal(size=net.blobs[name].shape)
