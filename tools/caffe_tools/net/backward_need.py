"""Which layers of a net run backward, and toward which bottoms and learnable blobs.

Source: Caffe src/caffe/net.cpp, ``Net::Init``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe_tools.net.net import Net


@dataclass
class BackwardNeed:
    """For each layer: whether it runs backward, toward which bottoms, and which learnable blobs get diffs."""

    layers: list[bool]
    bottoms: list[list[bool]]
    learn: list[list[bool]]


def backward_need(net: Net) -> BackwardNeed:
    """As Caffe decides it: forward, whatever learns or lies above something that does; then, from the losses down,
    whatever contributes to a loss; ``force_backward`` overrides both."""
    need = _above_what_learns(net)
    _only_under_losses(net, need)
    if net.spec.force_backward:
        _force(net, need)
    return need


def _above_what_learns(net: Net) -> BackwardNeed:
    needs: dict[str, bool] = {}
    result = BackwardNeed([], [], [])
    for spec, layer in zip(net.spec.layers, net.layers, strict=True):
        has_rate = [spec.param(index).lr_mult != 0 for index in range(len(layer.blobs))]
        learn = [has_rate[index] and layer.learns(index) for index in range(len(layer.blobs))]
        below = [needs[bottom] for bottom in spec.bottoms]
        bottoms = list(spec.propagate_down) if spec.propagate_down else below
        # BatchNorm's statistics count here, though they do not learn: Caffe asks for lr_mult alone
        layer_needs = any(below) or any(has_rate)
        for top in spec.tops:
            needs[top] = layer_needs
        result.layers.append(layer_needs)
        result.bottoms.append(bottoms)
        result.learn.append(learn)
    return result


def _only_under_losses(net: Net, need: BackwardNeed) -> None:
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for index in reversed(range(len(net.layers))):
        spec = net.spec.layers[index]
        contributes = any(
            weight or top in under_loss for top, weight in zip(spec.tops, net.loss_weights[index], strict=True)
        )
        skips = all(top in skipped for top in spec.tops)
        if need.layers[index] and skips:
            need.layers[index] = False
            need.bottoms[index] = [False] * len(spec.bottoms)
        if not contributes:
            need.layers[index] = False
        for position, bottom in enumerate(spec.bottoms):
            if contributes:
                under_loss.add(bottom)
            else:
                need.bottoms[index][position] = False
            if not need.bottoms[index][position]:
                skipped.add(bottom)


def _force(net: Net, need: BackwardNeed) -> None:
    for index, layer in enumerate(net.layers):
        need.layers[index] = True
        for position in range(len(need.bottoms[index])):
            need.bottoms[index][position] = need.bottoms[index][position] or layer.allow_force_backward(position)
        need.learn[index] = [layer.learns(i) for i in range(len(need.learn[index]))]


def has_loss(net: Net) -> bool:
    """Whether some layer is a loss or has a loss_weight, though it be 0; if not, backward starts at given diffs."""
    return any(layer.is_loss or spec.loss_weights for layer, spec in zip(net.layers, net.spec.layers, strict=True))
