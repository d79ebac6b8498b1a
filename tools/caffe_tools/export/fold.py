"""BatchNorm with stored statistics, and the Scale behind it, folded into the convolution or InnerProduct before them.

y = ((W·x + b − mean) / √(variance + eps)) · s + t is one product with W′ = W · f and b′ = (b − mean) · f + t, where
f = s / √(variance + eps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffe_tools.net.layer import EmbeddedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.message import Message

OUTPUT_AXIS = {"Convolution": 0, "InnerProduct": 0}
"""The layer types that take in what follows them, and the axis of their weight that counts outputs."""
PARAM_MESSAGE = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param"}


@dataclass
class Folded:
    """A layer with the ones behind it folded in: its spec, with a bias, and its two learnable blobs."""

    spec: LayerSpec
    blobs: list[np.ndarray]


def fold(net: Net) -> tuple[dict[str, Folded], set[str]]:
    """The layers that take others in, by name, and the names of the layers that thereby vanish."""
    folded: dict[str, Folded] = {}
    vanished: set[str] = set()
    for index, layer in enumerate(net.layers):
        if layer.type in OUTPUT_AXIS and isinstance(layer, StandardLayer) and len(layer.spec.tops) == 1:
            chain = _chain_behind(layer, net.layers[index + 1 :], net.outputs)
            if chain and _is_unshared(layer, net.layers):
                folded[layer.spec.name] = _fold_chain(layer, chain)
                vanished |= {follower.spec.name for follower in chain}
    return folded, vanished


def _chain_behind(layer: StandardLayer, behind: Sequence[EmbeddedLayer], outputs: list[str]) -> list[StandardLayer]:
    """The BatchNorm and the Scale that alone read the layer's top, one after the other."""
    chain: list[StandardLayer] = []
    blob = layer.spec.tops[0]
    for position, follower in enumerate(behind):
        spec = follower.spec
        if blob not in spec.bottoms:
            continue
        wanted = ("BatchNorm", "Scale")[len(chain)] if len(chain) < 2 else None
        if spec.type != wanted or not isinstance(follower, StandardLayer) or not _can_fold(follower):
            break
        chain.append(follower)
        is_read_later = blob in outputs or any(blob in later.spec.bottoms for later in behind[position + 1 :])
        if spec.tops[0] != blob and is_read_later:
            return chain[:-1]
        blob = spec.tops[0]
    return chain


def _can_fold(layer: StandardLayer) -> bool:
    if layer.type == "BatchNorm":
        stored = layer.layer.batch_norm_param.use_global_stats
        return layer.spec.phase == "TEST" if stored is None else stored
    p = layer.layer.scale_param
    return len(layer.spec.bottoms) == 1 and p.axis == 1 and p.num_axes == 1


def _is_unshared(layer: StandardLayer, layers: Sequence[EmbeddedLayer]) -> bool:
    """Whether no other layer uses the layer's learnable blobs."""
    mine = {blob.memory for blob in layer.blobs}
    return mine.isdisjoint(blob.memory for other in layers if other is not layer for blob in other.blobs)


def _fold_chain(layer: StandardLayer, chain: list[StandardLayer]) -> Folded:
    weight = layer.blobs[0].data
    message = PARAM_MESSAGE[layer.type]
    transposed = layer.type == "InnerProduct" and layer.layer.inner_product_param.transpose
    output_axis = 1 if transposed else OUTPUT_AXIS[layer.type]
    outputs = weight.shape[output_axis]
    factor = np.ones(outputs)
    bias = layer.blobs[1].data.astype(np.float64) if len(layer.blobs) > 1 else np.zeros(outputs)
    for follower in chain:
        if follower.type == "BatchNorm":
            mean, variance, weight_of_sums = (blob.data.astype(np.float64) for blob in follower.blobs)
            scale = 0.0 if weight_of_sums[0] == 0 else 1 / weight_of_sums[0]
            step = 1 / np.sqrt(variance * scale + follower.layer.batch_norm_param.eps)
            bias = (bias - mean * scale) * step
        else:
            step = follower.blobs[0].data.astype(np.float64)
            bias = bias * step + (follower.blobs[1].data if len(follower.blobs) > 1 else 0)
        factor *= step
    along = [1] * weight.ndim
    along[output_axis] = outputs
    blobs = [(weight * factor.reshape(along)).astype(np.float32), bias.astype(np.float32)]
    spec = replace(layer.spec, message=_with_bias(layer.spec.message, message))
    return Folded(spec, blobs)


def _with_bias(message: Message, name: str) -> Message:
    result = message.copy()
    result.messages(name)[0].set("bias_term", [True])
    return result
