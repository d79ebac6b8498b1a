"""Interp: bilinear resizing in which the corners stay where they are (DeepLab, PSPNet, ICNet).

Source: DeepLab src/caffe/layers/interp_layer.cpp, src/caffe/util/interp.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type


@layer_type(
    "Interp",
    interp_param={
        "height": Int(),
        "width": Int(),
        "zoom_factor": Int(),
        "shrink_factor": Int(),
        "pad_beg": Int(0),
        "pad_end": Int(0),
    },
)
def interp(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """The image, cropped by −``pad_beg`` and −``pad_end``, resized bilinearly, corners on corners.

    To ``height`` × ``width``; or an axis of n shrinks to (n − 1) / ``shrink_factor`` + 1 and grows to
    n + (n − 1) · (``zoom_factor`` − 1).
    """
    p = layer.interp_param
    layer.expect_axes(0, x, 4)
    if p.pad_beg > 0 or p.pad_end > 0:
        raise layer.error("pad_beg and pad_end must be 0 or less: they crop", "interp_param")
    if p.pad_beg or p.pad_end:
        end = p.pad_end if p.pad_end else 2**31 - 1
        x = op.Slice(x, [-p.pad_beg] * 2, [end] * 2, [2, 3])
    size = op.dims(x, [2, 3])
    target = _target(op, layer, x, size)
    y = op.Resize(x, None, None, target, mode="linear", coordinate_transformation_mode="align_corners", axes=[2, 3])

    def gradient(dy: ir.Value) -> list[ir.Value]:
        down, across = (_weights(op, size, target, axis) for axis in (0, 1))
        return [op.MatMul(op.MatMul(op.Transpose(down, perm=[1, 0]), dy), across)]

    op.define_gradient([y], [x], gradient)
    return y


def _target(op: Builder, layer: Layer, x: ir.Value, size: ir.Value) -> ir.Value:
    p = layer.interp_param
    has_size = "height" in p.given and "width" in p.given
    factors = {"zoom_factor", "shrink_factor"} & p.given
    if has_size == bool(factors):
        raise layer.error("give height and width, or zoom_factor or shrink_factor", "interp_param")
    if min(getattr(p, name) for name in (factors or ("height", "width"))) < 1:
        raise layer.error("the size and factors that it resizes to must be 1 or more", "interp_param")
    if has_size:
        return op.constant([p.height, p.width])
    shrink, zoom = p.shrink_factor or 1, p.zoom_factor or 1
    known = op.shape(x)[2:]
    if all(isinstance(dim, int) for dim in known):
        return op.constant([((dim - 1) // shrink) * zoom + 1 for dim in known])
    return op.Add(op.Mul(op.Div(op.Sub(size, 1), shrink), zoom), 1)


def _weights(op: Builder, size: ir.Value, target: ir.Value, axis: int) -> ir.Value:
    """target × size: how much each element of one axis of the image gives to each of the result."""
    before, after = (op.cast(op.Gather(dims, axis), "float32") for dims in (size, target))
    step = op.Div(op.Sub(before, 1), op.Max(op.Sub(after, 1), 1))
    step = op.Where(op.Greater(after, 1), step, 0)
    places = op.Mul(op.Range(op.constant(0.0), after, op.constant(1.0)), step)
    elements = op.Range(op.constant(0.0), before, op.constant(1.0))
    return op.Relu(op.Sub(1.0, op.Abs(op.Sub(op.Unsqueeze(places, [1]), op.Unsqueeze(elements, [0])))))
