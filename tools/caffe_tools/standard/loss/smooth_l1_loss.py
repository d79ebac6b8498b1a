"""SmoothL1Loss: the detectors' loss of box regression (Huber's, scaled), of Fast R-CNN, py-faster-rcnn and Caffe-SSD.

Source: caffe-fast-rcnn src/caffe/layers/smooth_L1_loss_layer.cu, Caffe-SSD src/caffe/layers/smooth_L1_loss_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Float
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import REAL, layer_type


@layer_type(
    "SmoothL1Loss", bottoms=(2, 4), is_loss=True, labels={2: REAL, 3: REAL}, smooth_l1_loss_param={"sigma": Float(1.0)}
)
def smooth_l1_loss(op: Builder, layer: Layer, x: ir.Value, target: ir.Value, *weights: ir.Value) -> ir.Value:
    """Σ outside · f(inside · (x − target)) / N, with f(d) = σ²d²/2 where |d| < 1/σ², and |d| − 1/(2σ²) elsewhere.

    N is the first dim. ``inside`` and ``outside`` weights, of the shape of x, are the third and the fourth bottom,
    1 where left out. Both x and target get a gradient.
    """
    sigma = layer.smooth_l1_loss_param.sigma
    if sigma <= 0:
        raise layer.error(f"sigma must be positive, not {sigma:g}", "smooth_l1_loss_param")
    others = [_like(op, layer, x, index, value) for index, value in enumerate((target, *weights), start=1)]
    target_, inside, outside = [*others, None, None][:3]
    difference = op.Sub(x, target_)
    if inside is not None:
        difference = op.Mul(inside, difference)
    size, square = op.Abs(difference), sigma * sigma
    is_small = op.Less(size, 1 / square)
    losses = op.Where(is_small, op.Mul(op.Mul(difference, difference), square / 2), op.Sub(size, 0.5 / square))
    if outside is not None:
        losses = op.Mul(outside, losses)
    count = op.count(x, [0])
    loss = op.Div(op.ReduceSum(losses, keepdims=0), count)

    def gradient(dloss: ir.Value) -> list[ir.Value | None]:
        slope = op.Where(is_small, op.Mul(difference, square), op.Sign(difference))
        # with inside weights alone (Fast R-CNN, SSD) Caffe takes them for 0 or 1 and leaves their factor out
        if outside is not None:
            slope = op.Mul(op.Mul(slope, inside), outside)
        dx = op.Mul(slope, op.Div(dloss, count))
        return [dx, op.reshape(op.Neg(dx), op.shape(target)), *[None] * len(weights)]

    op.define_gradient([loss], [x, target, *weights], gradient)
    return loss


def _like(op: Builder, layer: Layer, x: ir.Value, index: int, value: ir.Value) -> ir.Value:
    """Bottom ``index`` in the shape of ``x``, from which it may differ in 1s at the end (Caffe's N, C, H, W view)."""
    shape = layer.expect_axes(0, x, 0, 4)
    have, want = ((*dims, 1, 1, 1, 1)[:4] for dims in (op.shape(value), shape))
    if len(op.shape(value)) > 4 or have != want:
        layer.expect_shape(index, value, shape, "all its bottoms have one shape")
    return op.reshape(value, shape)
