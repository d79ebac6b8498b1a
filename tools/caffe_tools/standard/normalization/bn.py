"""BN: batch normalization with its scale and shift in one layer, as SegNet and as PSPNet have it.

Source: caffe-segnet src/caffe/layers/bn_layer.cpp; PSPNet (yjxiong/caffe) src/caffe/layers/bn_layer.cpp and the older
one of hszhao/PSPNet, src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, Float, Submessage
from caffe_tools.prototxt.messages import ENGINE, FILLER
from caffe_tools.standard.layer import MEAN, SCALE, SHIFT, VARIANCE, Layer
from caffe_tools.standard.registry import layer_type

SEGNET = {"bn_mode"}
WITH_STATISTICS = {"slope_filler", "bias_filler", "momentum", "eps", "frozen", "var_eps", "moving_average", "decay"}
"""Fields that tell the forks apart, which use one name for two layers."""


@layer_type(
    "BN",
    tops=(1, 3),
    bn_param={
        "bn_mode": Enum("LEARN", "INFERENCE"),
        "scale_filler": Submessage(FILLER),
        "shift_filler": Submessage(FILLER),
        "slope_filler": Submessage(FILLER),
        "bias_filler": Submessage(FILLER),
        "momentum": Float(0.9),
        "eps": Float(1e-5),
        "frozen": Bool(False),
        "var_eps": Float(1e-10),
        "moving_average": Bool(True),
        "decay": Float(0.05),
        "engine": ENGINE,
    },
)
def bn(op: Builder, layer: Layer, x: ir.Value) -> ir.Value | tuple[ir.Value, ...]:
    """scale · (x − mean) / √(variance + ε) + shift, channel by channel; learnable blobs 1 × C × 1 × 1.

    SegNet's (with ``bn_mode``, or nothing but ``scale_filler`` and ``shift_filler``): scale and shift; the batch's
    statistics (LEARN; more tops give them), or none, so that scale · x + shift is left (INFERENCE). PSPNet's (with
    ``slope_filler``, ``momentum``, ``frozen``, …): scale, shift, stored mean, stored variance; these serve in TEST and
    where ``frozen`` is set, which stops all learning; else the batch's do, and the stored ones follow.
    """
    p = layer.bn_param
    layer.expect_axes(0, x, 4)
    if SEGNET & p.given and WITH_STATISTICS & p.given:
        raise layer.error(f"bn_mode (SegNet) does not go with {', '.join(sorted(WITH_STATISTICS & p.given))} (PSPNet)")
    has_statistics = bool(WITH_STATISTICS & p.given) or not {"bn_mode", "scale_filler", "shift_filler"} & p.given
    if has_statistics:
        if layer.top_count > 1:
            raise layer.error("more tops, the batch's statistics, are offered by SegNet's form (with bn_mode) alone")
        return _with_statistics(op, layer, x)
    return _segnet(op, layer, x)


def _blobs(op: Builder, layer: Layer, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Scale and shift."""
    p, form = layer.bn_param, (1, op.shape(x)[1], 1, 1)
    if p.frozen:
        return layer.statistic(form, SCALE), layer.statistic(form, SHIFT)
    scale = p.slope_filler if "slope_filler" in p.given else p.scale_filler
    shift = p.bias_filler if "bias_filler" in p.given else p.shift_filler
    return layer.parameter(form, scale), layer.parameter(form, shift)


def _normalized(op: Builder, x: ir.Value, eps: float) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x by the batch's statistics, and these."""
    mean = op.ReduceMean(x, [0, 2, 3], keepdims=1)
    centered = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centered, centered), [0, 2, 3], keepdims=1)
    return op.Div(centered, op.Sqrt(op.Add(variance, eps))), mean, variance


def _segnet(op: Builder, layer: Layer, x: ir.Value) -> tuple[ir.Value, ...]:
    scale, shift = _blobs(op, layer, x)
    if layer.bn_param.bn_mode == "INFERENCE":
        if layer.top_count > 1:
            raise layer.error("bn_mode INFERENCE has no statistics for more tops")
        return (op.Add(op.Mul(x, scale), shift),)
    unit, mean, variance = _normalized(op, x, 1e-9)
    y = op.Add(op.Mul(unit, scale), shift)
    extra = (op.without_gradient(op.Identity(value), x) for value in (mean, variance)[: layer.top_count - 1])
    return (y, *extra)


def _with_statistics(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    p, channels = layer.bn_param, op.shape(x)[1]
    is_older = bool({"var_eps", "moving_average", "decay"} & p.given)
    eps, share = (p.var_eps, p.decay) if is_older else (p.eps, 1 - p.momentum)
    scale, shift = _blobs(op, layer, x)
    form = (1, channels, 1, 1)
    mean, variance = layer.statistic(form, MEAN), layer.statistic(form, VARIANCE)
    if p.frozen or (layer.phase == "TEST" and (p.moving_average or not is_older)):
        flat = [op.reshape(value, [channels]) for value in (scale, shift, mean, variance)]
        return op.BatchNormalization(x, *flat, epsilon=eps)
    unit, batch_mean, batch_variance = _normalized(op, x, eps)
    if layer.phase == "TRAIN":
        for index, stored, now in ((2, mean, batch_mean), (3, variance, batch_variance)):
            layer.update(index, op.Add(op.Mul(stored, 1 - share), op.Mul(now, share)))
    return op.Add(op.Mul(unit, scale), shift)
