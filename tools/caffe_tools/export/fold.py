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

Step = tuple[np.ndarray, np.ndarray | float]
"""What each channel is multiplied by, and what is added then."""


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
        if isinstance(layer, StandardLayer) and layer.kind.output_axis and len(layer.spec.tops) == 1:
            chain = _chain_behind(layer, net.layers[index + 1 :], net.outputs)
            if chain and _is_unshared(layer, net.layers):
                axis = layer.kind.output_axis(layer.layer)
                folded[layer.spec.name] = _fold_steps(layer, axis, [step for _, step in chain])
                vanished |= {follower.spec.name for follower, _ in chain}
    return folded, vanished


def _chain_behind(
    layer: StandardLayer, behind: Sequence[EmbeddedLayer], outputs: list[str]
) -> list[tuple[StandardLayer, Step]]:
    """The layers that alone read the layer's top, one after the other, and what each does: one that brings channels to
    stored statistics (BatchNorm), then those that scale and shift them (Scale)."""
    chain: list[tuple[StandardLayer, Step]] = []
    blob = layer.spec.tops[0]
    for position, follower in enumerate(behind):
        spec = follower.spec
        if blob not in spec.bottoms:
            continue
        if not isinstance(follower, StandardLayer) or bool(follower.layer.statistics) != (not chain):
            break
        step = _per_channel(follower)
        if step is None:
            break
        chain.append((follower, step))
        is_read_later = blob in outputs or any(blob in later.spec.bottoms for later in behind[position + 1 :])
        if spec.tops[0] != blob and is_read_later:
            return chain[:-1]
        blob = spec.tops[0]
    return chain


def _per_channel(layer: StandardLayer) -> Step | None:
    """What the layer multiplies and shifts each channel by; None where it does more."""
    stored = [blob.data.astype(np.float64) for blob in layer.blobs]
    return layer.kind.per_channel(layer.layer, stored) if layer.kind.per_channel else None


def _is_unshared(layer: StandardLayer, layers: Sequence[EmbeddedLayer]) -> bool:
    """Whether no other layer uses the layer's learnable blobs."""
    mine = {blob.memory for blob in layer.blobs}
    return mine.isdisjoint(blob.memory for other in layers if other is not layer for blob in other.blobs)


def _fold_steps(layer: StandardLayer, output_axis: int, steps: Sequence[Step]) -> Folded:
    weight = layer.blobs[0].data
    outputs = weight.shape[output_axis]
    factor = np.ones(outputs)
    bias = layer.blobs[1].data.astype(np.float64) if len(layer.blobs) > 1 else np.zeros(outputs)
    for step, summand in steps:
        factor, bias = factor * step, bias * step + summand
    along = [1] * weight.ndim
    along[output_axis] = outputs
    blobs = [(weight * factor.reshape(along)).astype(np.float32), bias.astype(np.float32)]
    message = next(name for name, fields in layer.kind.messages.items() if "bias_term" in fields)
    return Folded(replace(layer.spec, message=_with_bias(layer.spec.message, message)), blobs)


def _with_bias(message: Message, name: str) -> Message:
    result = message.copy()
    result.messages(name)[0].set("bias_term", [True])
    return result
