"""Crop: a part of one blob, of the size of another.

Source: Caffe src/caffe/layers/crop_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Int, Repeated, UInt
from caffe_tools.standard.layer import Layer, dims_text
from caffe_tools.standard.registry import layer_type


@layer_type("Crop", moves=True, bottoms=2, crop_param={"axis": Int(2), "offset": Repeated(UInt())})
def crop(op: Builder, layer: Layer, x: ir.Value, reference: ir.Value) -> ir.Value:
    """The first bottom, from ``axis`` on cut to the second one's dims, beginning at ``offset`` (one, or one per axis).

    The second bottom lends its shape alone and gets no gradient.
    """
    p, shape, wanted = layer.crop_param, op.shape(x), op.shape(reference)
    start = layer.axis(p.axis, x)
    axes = list(range(start, len(shape)))
    if len(wanted) != len(shape):
        raise layer.error(
            f"its bottoms have the shapes {dims_text(shape)} and {dims_text(wanted)}, but must have as many axes"
        )
    if len(p.offset) not in (0, 1, len(axes)):
        raise layer.error(f"offset is given {len(p.offset)} times for {len(axes)} axes: give it once, or for each")
    offsets = list(p.offset) if len(p.offset) == len(axes) else (list(p.offset) or [0]) * len(axes)
    for axis, offset in zip(axes, offsets, strict=True):
        have, want = shape[axis], wanted[axis]
        if isinstance(have, int) and isinstance(want, int) and have - offset < want:
            raise layer.error(
                f"axis {axis} of bottom {layer.spec.bottoms[0]!r} has {have} elements, too few for an offset of"
                f" {offset} and {want} elements of bottom {layer.spec.bottoms[1]!r}"
            )
    if not p.offset and shape[start:] != wanted[start:]:
        layer.note(
            "it gives no offset: 0 is taken, as in BVLC's Caffe;"
            " the forks of FCN, HED, CRF-RNN and DeepSkeleton compute one"
        )
    y = op.Slice(x, offsets, op.Add(op.dims(reference, axes), offsets), axes)
    y.shape = ir.Shape([*shape[:start], *wanted[start:]])
    return y
