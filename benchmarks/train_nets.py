"""The nets of train.py: a prototxt, a batch of data, and the same function written for PyTorch as one writes it there.

A PyTorch function takes the parameters under Caffe's names (``conv1/0``) and the data under their blobs' names, and
returns the losses under theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe_tools import prototxt
from caffe_tools.prototxt.message import Message

EXAMPLES = Path(__file__).parent.parent / "prototxt_examples"


@dataclass(frozen=True)
class TrainNet:
    title: str
    text: Callable[[], str]
    """The prototxt, with Input layers for the data."""
    data: Callable[[np.random.Generator], dict[str, np.ndarray]]
    """A batch, by blob."""
    torch_losses: Callable[[dict, dict], dict]


def inputs(**shapes: tuple[int, ...]) -> list[str]:
    return [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{'
        f" {' '.join(f'dim: {dim}' for dim in shape)} }} }} }}"
        for name, shape in shapes.items()
    ]


def layer(kind: str, name: str, bottoms: str, parameters: str = "", top: str | None = None) -> str:
    blobs = " ".join(f'bottom: "{blob}"' for blob in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {blobs} top: "{top or name}" {parameters} }}'


# LeNet ---------------------------------------------------------------------------------------------------------------


def lenet_text() -> str:
    """The example's net, fed by Input layers instead of its data layer."""
    net = prototxt.load(EXAMPLES / "lenet_digits.prototxt")
    fed = prototxt.parse("\n".join(inputs(pixels=(64, 1, 8, 8), label=(64,))))
    layers = [item for item in net.messages("layer") if not _is_left_out(item)]
    net.set("layer", [*fed.messages("layer"), *layers])
    return prototxt.to_text(net)


def _is_left_out(item: Message) -> bool:
    return item.first("name") in ("digits", "accuracy")


def lenet_data(random: np.random.Generator) -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / "data" / "digits_train.npz", allow_pickle=False) as digits:
        chosen = random.choice(len(digits["label"]), 64, replace=False)
        return {"pixels": digits["data"][chosen].astype("f4"), "label": digits["label"][chosen].astype("f4")}


def lenet_torch(p: dict, data: dict) -> dict:
    from torch.nn import functional

    x = data["pixels"] * 0.0625
    x = functional.max_pool2d(functional.conv2d(x, p["conv1/0"], p["conv1/1"], padding=2), 2)
    x = functional.max_pool2d(functional.conv2d(x, p["conv2/0"], p["conv2/1"], padding=2), 2)
    x = functional.relu(functional.linear(x.flatten(1), p["ip1/0"], p["ip1/1"]))
    x = functional.linear(x, p["ip2/0"], p["ip2/1"])
    return {"loss": functional.cross_entropy(x, data["label"].long())}


# ResNet-18 -----------------------------------------------------------------------------------------------------------

PICTURE, BATCH, CLASSES = 112, 8, 1000
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""ResNet-18's channels and first strides (He et al., Deep Residual Learning for Image Recognition, 2016, table 1)."""


SHIFTED = "scale_param { bias_term: true bias_filler { value: 3 } }"
"""Were half of the two million activations below 0, some would be so close to it that rounding decides whether ReLU
passes their gradient, and no two engines could be compared. So few are."""


def blocks() -> list[tuple[str, int, int, bool]]:
    """Name, channels, stride, and whether the shortcut is a convolution, of each residual block."""
    return [
        (f"res{stage}{letter}", channels, stride if letter == "a" else 1, letter == "a" and stage > 2)
        for stage, (channels, stride) in enumerate(STAGES, start=2)
        for letter in "ab"
    ]


def resnet_text() -> str:
    lines = ['name: "ResNet-18"', *inputs(data=(BATCH, 3, PICTURE, PICTURE), label=(BATCH,))]

    def convolution(name: str, bottom: str, outputs: int, kernel: int, stride: int, relu: bool) -> None:
        pad, filler = kernel // 2, 'weight_filler { type: "msra" }'
        window = f"num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride} bias_term: false {filler}"
        lines.append(layer("Convolution", name, bottom, f"convolution_param {{ {window} }}"))
        lines.append(layer("BatchNorm", f"{name}_bn", name, top=name))
        lines.append(layer("Scale", f"{name}_scale", name, SHIFTED, top=name))
        if relu:
            lines.append(layer("ReLU", f"{name}_relu", name, top=name))

    convolution("conv1", "data", 64, 7, 2, relu=True)
    lines.append(layer("Pooling", "pool1", "conv1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"))
    blob = "pool1"
    for name, channels, stride, is_projected in blocks():
        convolution(f"{name}_1", blob, channels, 3, stride, relu=True)
        convolution(f"{name}_2", f"{name}_1", channels, 3, 1, relu=False)
        if is_projected:
            convolution(f"{name}_0", blob, channels, 1, stride, relu=False)
        lines.append(layer("Eltwise", name, f"{f'{name}_0' if is_projected else blob} {name}_2"))
        lines.append(layer("ReLU", f"{name}_relu", name, top=name))
        blob = name
    lines.append(layer("Pooling", "pool5", blob, "pooling_param { pool: AVE global_pooling: true }"))
    classifier = f'inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }}'
    lines.append(layer("InnerProduct", "fc", "pool5", classifier))
    lines.append(layer("SoftmaxWithLoss", "loss", "fc label"))
    return "\n".join(lines)


def resnet_data(random: np.random.Generator) -> dict[str, np.ndarray]:
    pictures = random.standard_normal((BATCH, 3, PICTURE, PICTURE), "f4")
    return {"data": pictures, "label": random.integers(0, CLASSES, BATCH).astype("f4")}


def resnet_torch(p: dict, data: dict) -> dict:
    import torch
    from torch.nn import functional

    def convolution(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        weight, scale, bias = p[f"{name}/0"], p[f"{name}_scale/0"], p[f"{name}_scale/1"]
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance = data.setdefault(f"{name}_statistics", (torch.zeros_like(scale), torch.ones_like(scale)))
        return functional.batch_norm(y, mean.detach(), variance.detach(), scale, bias, training=True, momentum=0.001)

    x = functional.relu(convolution("conv1", data["data"], 2), inplace=True)
    x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
    for name, _, stride, is_projected in blocks():
        y = functional.relu(convolution(f"{name}_1", x, stride), inplace=True)
        y = convolution(f"{name}_2", y, 1)
        y += convolution(f"{name}_0", x, stride) if is_projected else x
        x = functional.relu(y, inplace=True)
    x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    return {"loss": functional.cross_entropy(functional.linear(x, p["fc/0"], p["fc/1"]), data["label"].long())}


# SSD head ------------------------------------------------------------------------------------------------------------

FEATURES, SIZE, ANCHORS, KINDS = 256, 19, 6, 21
"""Channels and size of the feature map, boxes at each of its positions, classes (Liu et al., SSD, 2016)."""
PLACES = ANCHORS * SIZE * SIZE


def ssd_text() -> str:
    """Three 3×3 convolutions, then the scores and boxes of every anchor and SSD's two losses.

    The channels of the scores are class · anchors + anchor, so that a Reshape leaves the classes on axis 1.
    """
    feature_map, boxes = (BATCH, FEATURES, SIZE, SIZE), (BATCH, ANCHORS * 4, SIZE, SIZE)
    lines = ['name: "SSD head"', *inputs(data=feature_map, label=(BATCH, PLACES), box_target=boxes, box_mask=boxes)]
    blob = "data"

    def convolution(name: str, outputs: int) -> None:
        window = f'num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }}'
        lines.append(layer("Convolution", name, blob, f"convolution_param {{ {window} }}"))

    for name in ("conv1", "conv2", "conv3"):
        convolution(name, FEATURES)
        lines.append(layer("ReLU", f"{name}_relu", name, top=name))
        blob = name
    convolution("score", KINDS * ANCHORS)
    convolution("box", ANCHORS * 4)
    shape = f"reshape_param {{ shape {{ dim: 0 dim: {KINDS} dim: -1 }} }}"
    lines.append(layer("Reshape", "anchor_score", "score", shape))
    lines.append(layer("SoftmaxWithLoss", "class_loss", "anchor_score label", "loss_param { ignore_label: -1 }"))
    lines.append(layer("SmoothL1Loss", "box_loss", "box box_target box_mask"))
    return "\n".join(lines)


def ssd_data(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Of the anchors 2 % have an object, three times as many are hard negatives, the others are ignored."""
    drawn = random.random((BATCH, PLACES))
    label = np.where(drawn < 0.02, random.integers(1, KINDS, drawn.shape), np.where(drawn < 0.08, 0, -1))
    mask = np.repeat((label > 0).reshape(BATCH, ANCHORS, SIZE, SIZE), 4, axis=1)
    features = random.standard_normal((BATCH, FEATURES, SIZE, SIZE), "f4")
    boxes = random.standard_normal(mask.shape, "f4")
    return {"data": features, "label": label.astype("f4"), "box_target": boxes, "box_mask": mask.astype("f4")}


def ssd_torch(p: dict, data: dict) -> dict:
    from torch.nn import functional

    x = data["data"]
    for name in ("conv1", "conv2", "conv3"):
        x = functional.relu(functional.conv2d(x, p[f"{name}/0"], p[f"{name}/1"], padding=1), inplace=True)
    score = functional.conv2d(x, p["score/0"], p["score/1"], padding=1).reshape(BATCH, KINDS, PLACES)
    box = functional.conv2d(x, p["box/0"], p["box/1"], padding=1)
    mask = data["box_mask"]
    return {
        "class_loss": functional.cross_entropy(score, data["label"].long(), ignore_index=-1),
        "box_loss": functional.smooth_l1_loss(box * mask, data["box_target"] * mask, reduction="sum") / BATCH,
    }


NETS = {
    "lenet": TrainNet("LeNet, 64 digits", lenet_text, lenet_data, lenet_torch),
    "resnet18": TrainNet(f"ResNet-18, {BATCH} × {PICTURE}²", resnet_text, resnet_data, resnet_torch),
    "ssd": TrainNet(f"SSD head, {BATCH} × {FEATURES} × {SIZE}²", ssd_text, ssd_data, ssd_torch),
}
