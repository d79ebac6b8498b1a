"""FCN-8s: VGG16 turned into convolutions, its scores upsampled and fused with those of pool4 and pool3.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation, 2015; names of voc-fcn8s.
"""

from __future__ import annotations

from known_nets.vgg import body
from known_nets.writer import Prototxt

CLASSES = 21


def fcn8s(divisor: int = 1, height: int = 500, width: int = 500) -> str:
    """Scores of 21 classes for every pixel. The image is padded by 100, so that the net takes any size."""
    net = Prototxt("voc-fcn8s", divisor)
    net.input("data", 1, 3, height, width, layer="input")
    blob = net.pool("pool5", body(net, "data", first_pad=100), "MAX", 2, 2)
    for number, kernel in ((6, 7), (7, 1)):
        blob = net.conv(f"fc{number}", blob, net.channels(4096), kernel)
        net.relu(f"relu{number}", blob)
    blob = net.deconv("upscore2", net.conv("score_fr", blob, CLASSES, 1, filler="xavier"), CLASSES, 4, 2)
    blob = _fused(net, "pool4", blob, offset=5)
    blob = net.deconv("upscore_pool4", blob, CLASSES, 4, 2)
    blob = _fused(net, "pool3", blob, offset=9)
    net.crop("score", net.deconv("upscore8", blob, CLASSES, 16, 8), "data", offset=31)
    return str(net)


def _fused(net: Prototxt, source: str, blob: str, offset: int) -> str:
    scores = net.conv(f"score_{source}", source, CLASSES, 1, filler="xavier")
    return net.add(f"fuse_{source}", [blob, net.crop(f"score_{source}c", scores, blob, offset)])
