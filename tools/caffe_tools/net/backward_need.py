"""Which layers of a net run backward, and toward which bottoms and learnable blobs.

Source: Caffe src/caffe/net.cpp, ``Net::Init``.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe_tools.net.layer import PlacedLayer


def decide_backward(layers: Sequence[PlacedLayer], force_backward: bool = False) -> None:
    """Set the layers' ``runs_backward``, ``propagate_down`` and ``learn`` as Caffe decides it: going forward, whatever
    learns or lies above something that does; then, from the losses down, whatever contributes to a loss;
    ``force_backward`` overrides both."""
    _above_what_learns(layers)
    _only_under_losses(layers)
    if force_backward:
        _force(layers)


def _above_what_learns(layers: Sequence[PlacedLayer]) -> None:
    needs: dict[str, bool] = {}
    for placed in layers:
        spec, layer = placed.spec, placed.layer
        has_rate = [spec.param(index).lr_mult != 0 for index in range(len(layer.blobs))]
        below = [needs[bottom] for bottom in spec.bottoms]
        # BatchNorm's statistics count here, though they do not learn: Caffe asks for lr_mult alone
        placed.runs_backward = any(below) or any(has_rate)
        placed.propagate_down = list(spec.propagate_down) or below
        placed.learn = [rate and layer.learns(index) for index, rate in enumerate(has_rate)]
        needs |= dict.fromkeys(spec.tops, placed.runs_backward)


def _only_under_losses(layers: Sequence[PlacedLayer]) -> None:
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for placed in reversed(layers):
        bottoms, tops = placed.spec.bottoms, placed.spec.tops
        contributes = any(placed.loss_weights) or not under_loss.isdisjoint(tops)
        is_skipped = placed.runs_backward and skipped.issuperset(tops)
        placed.runs_backward = placed.runs_backward and contributes and not is_skipped
        if is_skipped or not contributes:
            placed.propagate_down = [False] * len(bottoms)
        if contributes:
            under_loss.update(bottoms)
        skipped.update(bottom for bottom, asked in zip(bottoms, placed.propagate_down, strict=True) if not asked)


def _force(layers: Sequence[PlacedLayer]) -> None:
    for placed in layers:
        layer, asked = placed.layer, enumerate(placed.propagate_down)
        placed.runs_backward = True
        placed.propagate_down = [down or layer.allow_force_backward(index) for index, down in asked]
        placed.learn = [layer.learns(index) for index in range(len(placed.learn))]
