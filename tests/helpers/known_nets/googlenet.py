"""GoogLeNet: nine inception blocks, and two auxiliary classifiers while it trains.

Szegedy and others, Going Deeper with Convolutions, 2014, table 1; names of BVLC's bvlc_googlenet.
"""

from __future__ import annotations

from known_nets.writer import Prototxt

INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of a block's convolutions: 1×1, the reduction ahead of 3×3, 3×3, ahead of 5×5, 5×5, behind the pooling."""


def googlenet(divisor: int = 1, batch: int = 10) -> str:
    """The classifier of 1000 classes, to be used."""
    net = Prototxt("GoogleNet", divisor)
    blob = _body(net, net.input("data", batch, 3, 224, 224))
    net.softmax("prob", blob)
    return str(net)


def googlenet_train(divisor: int = 1, batch: int = 32) -> str:
    """The same with its three losses, reading images and labels from a database; accuracies in TEST."""
    net = Prototxt("GoogleNet", divisor)
    for phase in ("TRAIN", "TEST"):
        _images(net, phase, batch)
    blob = _body(net, "data", auxiliary={"4a": "loss1", "4d": "loss2"})
    _loss(net, "loss3", blob, top="loss3/loss3", weight=1)
    return str(net)


def _images(net: Prototxt, phase: str, batch: int) -> None:
    source = f"examples/imagenet/ilsvrc12_{'train' if phase == 'TRAIN' else 'val'}_lmdb"
    net.layer(
        "data",
        "Data",
        [],
        "data",
        f'top: "label" include {{ phase: {phase} }}'
        f" transform_param {{ mirror: {'true' if phase == 'TRAIN' else 'false'} crop_size: 224"
        " mean_value: 104 mean_value: 117 mean_value: 123 }"
        f' data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}',
    )


def _body(net: Prototxt, blob: str, auxiliary: dict[str, str] | None = None) -> str:
    """Everything up to the last classifier's scores; ``auxiliary`` names the classifiers behind inception blocks."""
    blob = _conv_relu(net, "conv1/", "7x7_s2", blob, 64, 7, relu="relu_7x7", pad=3, stride=2)
    blob = net.lrn("pool1/norm1", net.pool("pool1/3x3_s2", blob, "MAX", 3, 2))
    blob = _conv_relu(net, "conv2/", "3x3_reduce", blob, 64, 1)
    blob = _conv_relu(net, "conv2/", "3x3", blob, 192, 3, pad=1)
    blob = net.pool("pool2/3x3_s2", net.lrn("conv2/norm2", blob), "MAX", 3, 2)
    for block in INCEPTION:
        blob = _inception(net, block, blob)
        if auxiliary and block in auxiliary:
            _auxiliary(net, auxiliary[block], blob)
        if block in ("3b", "4e"):
            blob = net.pool(f"pool{block[0]}/3x3_s2", blob, "MAX", 3, 2)
    blob = net.pool("pool5/7x7_s1", blob, "AVE", 7, 1)
    net.dropout("pool5/drop_7x7_s1", blob, 0.4)
    return net.inner_product("loss3/classifier", blob, 1000, filler="xavier")


def _inception(net: Prototxt, block: str, blob: str) -> str:
    prefix = f"inception_{block}/"
    one, before_three, three, before_five, five, projection = INCEPTION[block]
    towers = [_conv_relu(net, prefix, "1x1", blob, one, 1)]
    reduced = _conv_relu(net, prefix, "3x3_reduce", blob, before_three, 1)
    towers.append(_conv_relu(net, prefix, "3x3", reduced, three, 3, pad=1))
    reduced = _conv_relu(net, prefix, "5x5_reduce", blob, before_five, 1)
    towers.append(_conv_relu(net, prefix, "5x5", reduced, five, 5, pad=2))
    pooled = net.pool(f"{prefix}pool", blob, "MAX", 3, 1, pad=1)
    towers.append(_conv_relu(net, prefix, "pool_proj", pooled, projection, 1))
    return net.layer(f"{prefix}output", "Concat", towers)


def _auxiliary(net: Prototxt, name: str, blob: str) -> None:
    pooled = net.pool(f"{name}/ave_pool", blob, "AVE", 5, 3)
    blob = _conv_relu(net, f"{name}/", "conv", pooled, 128, 1)
    blob = net.inner_product(f"{name}/fc", blob, net.channels(1024))
    net.relu(f"{name}/relu_fc", blob)
    net.dropout(f"{name}/drop_fc", blob, 0.7)
    scores = net.inner_product(f"{name}/classifier", blob, 1000, filler="xavier")
    _loss(net, name, scores, layer=f"{name}/loss", top=f"{name}/loss1", weight=0.3)


def _loss(net: Prototxt, name: str, scores: str, top: str, weight: float, layer: str | None = None) -> None:
    net.layer(layer or top, "SoftmaxWithLoss", [scores, "label"], top, f"loss_weight: {weight}")
    for best in (1, 5):
        text = f"include {{ phase: TEST }} accuracy_param {{ top_k: {best} }}"
        net.layer(f"{name}/top-{best}", "Accuracy", [scores, "label"], text=text)


def _conv_relu(
    net: Prototxt, prefix: str, name: str, blob: str, channels: int, kernel: int, relu: str = "", **options: int
) -> str:
    blob = net.conv(prefix + name, blob, net.channels(channels), kernel, **options)
    return net.relu(prefix + (relu or f"relu_{name}"), blob)
