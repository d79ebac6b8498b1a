"""Small nets for tests: text of layers, put together as a prototxt, and the nets that it makes."""

from __future__ import annotations

from caffe_tools import prototxt
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.net import Net


def data(name: str, *dims: int) -> str:
    shape = " ".join(f"dim: {dim}" for dim in dims)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {shape} }} }} }}\n'


def layer(name: str, type_: str, bottoms: str = "", tops: str = "", more: str = "") -> str:
    """``bottoms`` and ``tops`` are names with blanks between them."""
    bottom = " ".join(f'bottom: "{blob}"' for blob in bottoms.split())
    top = " ".join(f'top: "{blob}"' for blob in tops.split())
    return f'layer {{ name: "{name}" type: "{type_}" {bottom} {top} {more} }}\n'


def inner_product(name: str, bottom: str, top: str, more: str = "", outputs: int = 3) -> str:
    filler = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} {filler} }} {more}")


def python(name: str, class_: str, bottoms: str, tops: str, more: str = "", module: str = "caffe_layers") -> str:
    return layer(
        name,
        "Python",
        bottoms,
        tops,
        f'python_param {{ module: "{module}" layer: "{class_}" {more} }} loss_weight: 1'
        if class_.endswith("LossLayer")
        else f'python_param {{ module: "{module}" layer: "{class_}" {more} }}',
    )


def euclidean_loss(bottom: str, target: str = "target", more: str = "") -> str:
    return layer("loss", "EuclideanLoss", f"{bottom} {target}", "loss", more)


FORCE = "force_backward: true\n"


def make_net(text: str, phase: str = "TRAIN", seed: int = 0, **options: object) -> Net:
    """The net of that text, its inputs drawn."""
    net = Net(prototxt.parse(text), phase, seed=seed, **options)
    draw_inputs(net, (), seed)
    return net
