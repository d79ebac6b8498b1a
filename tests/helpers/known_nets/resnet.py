"""ResNet-50: bottleneck blocks whose BatchNorm, Scale and ReLU all work in place.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2015, table 1; names of the authors' models.
"""

from __future__ import annotations

from known_nets.writer import Prototxt

STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}
"""For each stage how many blocks it has, and the channels of their 3×3 convolutions."""


def resnet50(divisor: int = 1, batch: int = 1) -> str:
    """The classifier of 1000 classes. Its first convolution alone has a bias."""
    net = Prototxt("ResNet-50", divisor)
    blob = net.conv("conv1", net.net_input("data", batch, 3, 224, 224), net.channels(64), 7, pad=3, stride=2)
    net.relu("conv1_relu", _normalized(net, "_conv1", blob))
    blob = net.pool("pool1", blob, "MAX", 3, 2)
    for stage, (count, channels) in STAGES.items():
        for index in range(count):
            stride = 2 if index == 0 and stage > 2 else 1
            blob = _block(net, f"{stage}{'abcdef'[index]}", blob, net.channels(channels), stride, projects=index == 0)
    blob = net.pool("pool5", blob, "AVE", 7, 1)
    net.softmax("prob", net.inner_product("fc1000", blob, 1000, filler="xavier"))
    return str(net)


def _block(net: Prototxt, name: str, blob: str, channels: int, stride: int, projects: bool) -> str:
    """Three convolutions beside a shortcut, which is a convolution where the shape changes."""
    shortcut = _conv(net, f"{name}_branch1", blob, 4 * channels, 1, stride=stride) if projects else blob
    inner = _conv(net, f"{name}_branch2a", blob, channels, 1, stride=stride)
    net.relu(f"res{name}_branch2a_relu", inner)
    inner = _conv(net, f"{name}_branch2b", inner, channels, 3, pad=1)
    net.relu(f"res{name}_branch2b_relu", inner)
    inner = _conv(net, f"{name}_branch2c", inner, 4 * channels, 1, scale=0.2)
    return net.relu(f"res{name}_relu", net.layer(f"res{name}", "Eltwise", [shortcut, inner]))


def _conv(net: Prototxt, name: str, blob: str, channels: int, kernel: int, scale: float = 1.0, **options: int) -> str:
    blob = net.conv(f"res{name}", blob, channels, kernel, bias=False, **options)
    return _normalized(net, name, blob, scale)


def _normalized(net: Prototxt, name: str, blob: str, scale: float = 1.0) -> str:
    """BatchNorm, and a Scale whose weights lie around ``scale``.

    It is small where a branch ends, as in nets that have learned: 16 random branches as strong as their shortcuts would
    magnify any rounding a hundredfold.
    """
    net.layer(f"bn{name}", "BatchNorm", blob, blob, "batch_norm_param { use_global_stats: true }")
    weights = f'filler {{ type: "uniform" min: {0.5 * scale} max: {1.5 * scale} }}'
    biases = 'bias_filler { type: "gaussian" std: 0.1 }'
    return net.layer(f"scale{name}", "Scale", blob, blob, f"scale_param {{ bias_term: true {weights} {biases} }}")
