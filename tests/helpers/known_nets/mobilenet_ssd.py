"""MobileNet-SSD: depthwise convolutions written as groups, with SSD's boxes and scores on them.

Howard and others, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017, table 1;
names of chuanqi305/MobileNet-SSD with BatchNorm merged into the convolutions.
"""

from __future__ import annotations

from known_nets.ssd import Source, detection_output, heads
from known_nets.writer import Prototxt

POINTWISE = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Channels of conv1 to conv13."""
HALVING = (2, 4, 6, 12)
"""The blocks whose depthwise convolution has stride 2."""
SOURCES = (
    Source("conv11", 60, None, (2,)),
    Source("conv13", 105, 150, (2, 3)),
    Source("conv14_2", 150, 195, (2, 3)),
    Source("conv15_2", 195, 240, (2, 3)),
    Source("conv16_2", 240, 285, (2, 3)),
    Source("conv17_2", 285, 300, (2, 3)),
)


def mobilenet_ssd(divisor: int = 1) -> str:
    """``detection_out`` has a row for each detection: image, label, score, xmin, ymin, xmax, ymax."""
    net = Prototxt("MobileNet-SSD", divisor)
    channels = net.channels(32)
    blob = _conv_relu(net, "conv0", net.net_input("data", 1, 3, 300, 300), channels, 3, pad=1, stride=2)
    for number, published in enumerate(POINTWISE, start=1):
        stride = 2 if number in HALVING else 1
        blob = _conv_relu(net, f"conv{number}/dw", blob, channels, 3, pad=1, stride=stride, group=channels)
        channels = net.channels(published)
        blob = _conv_relu(net, f"conv{number}", blob, channels, 1)
    for number, reduced, published in ((14, 256, 512), (15, 128, 256), (16, 128, 256), (17, 64, 128)):
        blob = _conv_relu(net, f"conv{number}_1", blob, net.channels(reduced), 1)
        blob = _conv_relu(net, f"conv{number}_2", blob, net.channels(published), 3, pad=1, stride=2)
    heads(net, SOURCES, kernel=1)
    detection_output(net, nms_top_k=100, keep_top_k=100, confidence=0.3)
    return str(net)


def _conv_relu(net: Prototxt, name: str, blob: str, channels: int, kernel: int, **options: int) -> str:
    return net.relu(f"{name}/relu", net.conv(name, blob, channels, kernel, **options))
