"""One good layer of each type whose parameters are numbers, and every one of these numbers at its ends and beyond."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from caffe_tools import standard
from caffe_tools.prototxt import parse
from caffe_tools.prototxt.fields import Field
from caffe_tools.prototxt.message import Message
from nets import FORCE, inputs, layer

IMAGE, FLAT = (2, 4, 6, 6), (3, 4)
GAUSSIAN = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
CONVOLUTION = f"convolution_param {{ num_output: 4 kernel_size: 3 {GAUSSIAN} }}"
RECURRENT = f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}"
TRANSFORM = "transform_param { crop_size: 4 }"
SOURCE = 'source: "s"'

CASES: dict[str, tuple[list[tuple[int, ...]], int, str]] = {
    "Accuracy": ([FLAT, (3,)], 1, ""),
    "AnnotatedData": ([], 2, f"data_param {{ {SOURCE} batch_size: 2 }} {TRANSFORM}"),
    "ArgMax": ([FLAT], 1, ""),
    "BN": ([IMAGE], 1, 'bn_param { scale_filler { type: "gaussian" } shift_filler { type: "uniform" } }'),
    "BatchNorm": ([IMAGE], 1, ""),
    "Bias": ([IMAGE], 1, 'bias_param { filler { type: "gaussian" } }'),
    "Clip": ([FLAT], 1, "clip_param { min: -1 max: 1 }"),
    "Concat": ([FLAT, FLAT], 1, ""),
    "ContrastiveLoss": ([FLAT, FLAT, (3,)], 1, ""),
    "Convolution": ([IMAGE], 1, CONVOLUTION),
    "ConvolutionDepthwise": ([IMAGE], 1, CONVOLUTION),
    "Crop": ([IMAGE, (2, 4, 3, 3)], 1, "crop_param { offset: 1 }"),
    "Data": ([], 2, f"data_param {{ {SOURCE} batch_size: 2 }} {TRANSFORM}"),
    "Deconvolution": ([IMAGE], 1, CONVOLUTION),
    "DepthwiseConvolution": ([IMAGE], 1, CONVOLUTION),
    "DetectionOutput": (
        [(1, 16), (1, 12), (1, 2, 16)],
        1,
        "detection_output_param { num_classes: 3 share_location: true nms_param { nms_threshold: 0.5 } keep_top_k: 5 }",
    ),
    "Dropout": ([FLAT], 1, ""),
    "DummyData": ([], 1, 'dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } }'),
    "ELU": ([FLAT], 1, ""),
    "Eltwise": ([FLAT, FLAT], 1, "eltwise_param { coeff: 1 coeff: 2 }"),
    "Embed": ([(3,)], 1, f"embed_param {{ input_dim: 5 num_output: 3 {GAUSSIAN} }}"),
    "Exp": ([FLAT], 1, ""),
    "Flatten": ([IMAGE], 1, ""),
    "HDF5Data": ([], 2, f"hdf5_data_param {{ {SOURCE} batch_size: 2 }}"),
    "Im2col": ([IMAGE], 1, CONVOLUTION),
    "ImageData": ([], 2, f"image_data_param {{ {SOURCE} batch_size: 2 new_height: 5 new_width: 5 }}"),
    "InfogainLoss": ([FLAT, (3,), (1, 1, 4, 4)], 1, ""),
    "InnerProduct": ([FLAT], 1, f"inner_product_param {{ num_output: 3 {GAUSSIAN} }}"),
    "Input": ([], 1, "input_param { shape { dim: 2 dim: 3 } }"),
    "Interp": ([IMAGE], 1, "interp_param { height: 5 width: 7 }"),
    "LRN": ([IMAGE], 1, ""),
    "LSTM": ([(4, 2, 3), (4, 2)], 1, RECURRENT),
    "Log": ([FLAT], 1, "log_param { shift: 9 }"),
    "MVN": ([IMAGE], 1, ""),
    "MemoryData": ([], 2, "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 4 }"),
    "MultiBoxLoss": (
        [(1, 16), (1, 12), (1, 2, 16), (1, 1, 2, 8)],
        1,
        "multibox_loss_param { num_classes: 3 share_location: true }",
    ),
    "Normalize": ([IMAGE], 1, ""),
    "PReLU": ([IMAGE], 1, ""),
    "PSROIPooling": (
        [(1, 8, 6, 6), (2, 5)],
        1,
        "psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 2 }",
    ),
    "Parameter": ([], 1, "parameter_param { shape { dim: 2 dim: 3 } }"),
    "Permute": ([IMAGE], 1, "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "Pooling": ([IMAGE], 1, "pooling_param { kernel_size: 3 stride: 2 }"),
    "Power": ([FLAT], 1, ""),
    "PriorBox": (
        [IMAGE, (2, 3, 48, 48)],
        1,
        "prior_box_param { min_size: 8 max_size: 16 aspect_ratio: 2 variance: 0.1 }",
    ),
    "Proposal": ([(1, 18, 4, 4), (1, 36, 4, 4), (1, 3)], 1, "proposal_param { }"),
    "RNN": ([(4, 2, 3), (4, 2)], 1, RECURRENT),
    "ROIPooling": ([IMAGE, (2, 5)], 1, "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }"),
    "ReLU": ([FLAT], 1, ""),
    "Reduction": ([IMAGE], 1, ""),
    "Region": ([(1, 125, 3, 3)], 1, "region_param { }"),
    "Reorg": ([IMAGE], 1, "reorg_param { stride: 2 }"),
    "Reshape": ([IMAGE], 1, "reshape_param { shape { dim: 0 dim: -1 } }"),
    "SPP": ([IMAGE], 1, "spp_param { pyramid_height: 2 }"),
    "Scale": ([IMAGE], 1, "scale_param { bias_term: true }"),
    "ShuffleChannel": ([IMAGE], 1, "shuffle_channel_param { group: 2 }"),
    "SigmoidCrossEntropyLoss": ([FLAT, FLAT], 1, ""),
    "Slice": ([IMAGE], 2, "slice_param { slice_point: 1 }"),
    "SmoothL1Loss": ([FLAT, FLAT], 1, ""),
    "Softmax": ([FLAT], 1, ""),
    "SoftmaxWithLoss": ([FLAT, (3,)], 1, ""),
    "Swish": ([FLAT], 1, ""),
    "Threshold": ([FLAT], 1, ""),
    "Tile": ([FLAT], 1, "tile_param { tiles: 2 }"),
    "Unpooling": ([IMAGE], 1, "unpooling_param { kernel_size: 2 stride: 2 }"),
    "Upsample": ([IMAGE], 1, "upsample_param { scale: 2 }"),
    "WindowData": ([], 2, f"window_data_param {{ {SOURCE} batch_size: 2 }} {TRANSFORM}"),
}
"""Type → the shapes of its bottoms, the number of its tops, its parameters."""

INTEGERS = (0, -1, 2**31 - 1, 2**31, 2**32 - 1)
REALS = (0, -1, 1e38, -1e38, float("nan"), float("inf"))
PAIRS = {"_h": "_w", "_w": "_h", "height": "width", "width": "height"}


def number_fields(kind: standard.LayerType) -> Iterator[tuple[tuple[str, ...], Field]]:
    """The way to every number that the type declares, from the layer's message on."""
    for message, fields in kind.messages.items():
        yield from _numbers((message,), fields)


def _numbers(way: tuple[str, ...], fields: Mapping[str, Field]) -> Iterator[tuple[tuple[str, ...], Field]]:
    for name, declared in fields.items():
        if declared.kind == "message":
            yield from _numbers((*way, name), declared.fields)
        elif declared.kind in ("int", "unsigned int", "int64", "float"):
            yield (*way, name), declared


def net_with(type_: str, way: tuple[str, ...], value: float) -> Message:
    """A net of the type's good layer, but for that one number (and what must be given, or left out, with it)."""
    shapes, tops, param = CASES[type_]
    bottoms = {f"b{i}": shape for i, shape in enumerate(shapes)}
    made = " ".join(f"t{i}" for i in range(tops))
    net = parse(FORCE + inputs(**bottoms) + layer("it", type_, " ".join(bottoms), made, param), "net.prototxt")
    message = net.messages("layer")[-1]
    for name in way[:-1]:
        if name not in message:
            message.add(name, Message())
        message = message.messages(name)[0]
    name = way[-1]
    message.set(name, [value])
    for end, other in PAIRS.items():
        if name.endswith(end) and (end.startswith("_") or way[0] == "interp_param"):
            stem = name.removesuffix(end)
            message.set(stem + other, [value if stem else 5])
            for single in (stem, f"{stem}_size"):
                message.remove(single)
    return net
