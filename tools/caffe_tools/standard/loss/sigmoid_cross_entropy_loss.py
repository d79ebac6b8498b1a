"""SigmoidCrossEntropyLoss: binary cross-entropy of every element.

Source: Caffe src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import same_count
from caffe_tools.prototxt.messages import LOSS_PARAM
from caffe_tools.standard.layer import Layer, dims_text
from caffe_tools.standard.loss.labels import check_batch
from caffe_tools.standard.loss.normalization import counted, divisor
from caffe_tools.standard.registry import BINARY, layer_type


@layer_type("SigmoidCrossEntropyLoss", bottoms=2, tops=(1, 2), is_loss=True, labels={1: BINARY}, loss_param=LOSS_PARAM)
def sigmoid_cross_entropy_loss(op: Builder, layer: Layer, x: ir.Value, target: ir.Value) -> tuple[ir.Value, ...]:
    """Σ max(x, 0) − x·t + log(1 + exp(−|x|)) / divisor. Targets are cut to int to find the ignored ones.

    Second top: sigmoid(x).
    """
    shape, target_shape = op.shape(x), op.shape(target)
    check_batch(op, layer, x, target)
    if not same_count(shape, target_shape):
        raise layer.error(
            f"bottom {layer.spec.bottoms[1]!r} of shape {dims_text(target_shape)} must have as many elements as the"
            f" scores' {dims_text(shape)}"
        )
    target = op.reshape(target, shape)
    mask = counted(op, layer, op.cast(target, "int64")) if layer.loss_param.ignore_label is not None else None
    losses = op.Add(op.Sub(op.Relu(x), op.Mul(x, target)), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1)))
    if mask is not None:
        losses = op.Where(mask, losses, 0)
    total = divisor(op, layer, x, "BATCH_SIZE", [0], x, mask)
    loss = op.Div(op.ReduceSum(losses, keepdims=0), total)
    tops = (loss, op.Sigmoid(x)) if layer.top_count == 2 else (loss,)

    def gradient(dloss: ir.Value | None, dsigmoid: ir.Value | None = None) -> list[ir.Value | None]:
        # (sigmoid(x) − t) · dloss / divisor; Caffe sends nothing back through the second top
        if dloss is None:
            return [None]
        difference = op.Sub(tops[1] if len(tops) == 2 else op.Sigmoid(x), target)
        scale = op.Div(dloss, total)
        return [op.Mul(difference, scale if mask is None else op.Where(mask, scale, 0))]

    op.define_gradient(tops, [x], gradient)
    return tops
