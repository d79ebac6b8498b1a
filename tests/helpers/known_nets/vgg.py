"""VGG16, and the body of it that SSD, Faster R-CNN and FCN stand on.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, configuration D.
"""

from __future__ import annotations

from known_nets.writer import Prototxt

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""For each block how many convolutions it has, and of how many channels."""


def vgg16(divisor: int = 1, batch: int = 10) -> str:
    """The classifier of 1000 classes."""
    net = Prototxt("VGG_ILSVRC_16_layers", divisor)
    blob = body(net, net.net_input("data", batch, 3, 224, 224))
    blob = fully_connected(net, net.pool("pool5", blob, "MAX", 2, 2))
    net.softmax("prob", net.inner_product("fc8", blob, 1000))
    return str(net)


def body(net: Prototxt, blob: str, first_pad: int = 1) -> str:
    """conv1_1 to conv5_3 with the pooling layers between the blocks."""
    for number, (count, channels) in enumerate(BLOCKS, start=1):
        for index in range(1, count + 1):
            pad = first_pad if blob == "data" else 1
            blob = net.conv(f"conv{number}_{index}", blob, net.channels(channels), 3, pad=pad)
            net.relu(f"relu{number}_{index}", blob)
        if number < len(BLOCKS):
            blob = net.pool(f"pool{number}", blob, "MAX", 2, 2)
    return blob


def fully_connected(net: Prototxt, blob: str) -> str:
    """fc6 and fc7, each with ReLU and Dropout in place."""
    for number in (6, 7):
        blob = net.inner_product(f"fc{number}", blob, net.channels(4096))
        net.relu(f"relu{number}", blob)
        net.dropout(f"drop{number}", blob)
    return blob
