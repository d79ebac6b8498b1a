"""CaffeNet, BVLC's reference net: AlexNet with each pooling layer ahead of its normalization.

Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012.
"""

from __future__ import annotations

from known_nets.vgg import fully_connected
from known_nets.writer import Prototxt


def caffenet(divisor: int = 1, batch: int = 10) -> str:
    """The classifier of 1000 classes; conv2, conv4 and conv5 work in two groups."""
    net = Prototxt("CaffeNet", divisor)
    blob = net.input("data", batch, 3, 227, 227)
    blob = _conv_relu(net, 1, blob, 96, 11, stride=4)
    blob = net.lrn("norm1", net.pool("pool1", blob, "MAX", 3, 2))
    blob = _conv_relu(net, 2, blob, 256, 5, pad=2, group=2)
    blob = net.lrn("norm2", net.pool("pool2", blob, "MAX", 3, 2))
    blob = _conv_relu(net, 3, blob, 384, 3, pad=1)
    blob = _conv_relu(net, 4, blob, 384, 3, pad=1, group=2)
    blob = _conv_relu(net, 5, blob, 256, 3, pad=1, group=2)
    blob = fully_connected(net, net.pool("pool5", blob, "MAX", 3, 2))
    net.softmax("prob", net.inner_product("fc8", blob, 1000))
    return str(net)


def _conv_relu(net: Prototxt, number: int, blob: str, channels: int, kernel: int, **options: int) -> str:
    blob = net.conv(f"conv{number}", blob, net.channels(channels), kernel, **options)
    return net.relu(f"relu{number}", blob)
