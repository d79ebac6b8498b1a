"""Small nets for tests: the text of layers, put together as a prototxt, and the nets that it makes."""

from __future__ import annotations

import numpy as np

from caffe_tools import prototxt
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.net import Net

FORCE = "force_backward: true\n"
XAVIER = 'weight_filler { type: "xavier" }'
GAUSSIAN = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'

# --- text. Everywhere a layer's name comes first, then its type, bottoms and tops, then the rest of its message.


def dims(shape: tuple) -> str:
    return " ".join(f"dim: {dim}" for dim in shape)


def inputs(**shapes: tuple) -> str:
    """An Input layer for each blob, named after it."""
    return "".join(
        layer(name, "Input", "", name, f"input_param {{ shape {{ {dims(shape)} }} }}") for name, shape in shapes.items()
    )


def layer(name: str, type_: str, bottoms: str = "", tops: str = "", more: str = "") -> str:
    """``bottoms`` and ``tops`` are names with blanks between them."""
    bottom = "".join(f'bottom: "{blob}" ' for blob in bottoms.split())
    top = "".join(f'top: "{blob}" ' for blob in tops.split())
    return f'layer {{ name: "{name}" type: "{type_}" {bottom}{top}{more} }}\n'


def inner_product(name: str, bottom: str, top: str, more: str = "", outputs: int = 3, fillers: str = GAUSSIAN) -> str:
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} {fillers} }} {more}")


def convolution(name: str, bottom: str, top: str, outputs: int = 3) -> str:
    param = f"num_output: {outputs} kernel_size: 3 {XAVIER}"
    return layer(name, "Convolution", bottom, top, f"convolution_param {{ {param} }}")


def python(name: str, class_: str, bottoms: str, tops: str, more: str = "", module: str = "caffe_layers") -> str:
    """A Python layer; ``more`` is the rest of its python_param. A loss layer weighs 1, which Caffe gives no Python
    layer by itself."""
    weight = " loss_weight: 1" if class_.endswith("LossLayer") else ""
    param = f'python_param {{ module: "{module}" layer: "{class_}" {more} }}'
    return layer(name, "Python", bottoms, tops, param + weight)


def euclidean_loss(bottom: str, target: str = "target", more: str = "") -> str:
    return layer("loss", "EuclideanLoss", f"{bottom} {target}", "loss", more)


# --- nets


def net_of(text: str, phase: str | None = "TRAIN", **keywords) -> Net:
    """The net of that text; its inputs hold zeros."""
    return Net(prototxt.parse(text, "net.prototxt"), phase, **keywords)


def drawn_net(text: str, phase: str = "TRAIN", seed: int = 0, **keywords) -> Net:
    """The net of that text, its inputs drawn as ``check`` draws them: valid for the layers that read them."""
    net = net_of(text, phase, seed=seed, **keywords)
    draw_inputs(net, (), seed)
    return net


def fill_inputs(net: Net, seed: int = 0) -> None:
    """Normal numbers in every input, whatever reads it."""
    random = np.random.default_rng(seed)
    for name in net.inputs:
        net.blobs[name].data[...] = random.normal(size=net.blobs[name].shape)
