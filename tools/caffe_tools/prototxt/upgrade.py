"""Nets of Caffe's older formats to today's, as upgrade_proto.cpp does when Caffe reads a prototxt.

    V0   layers { layer { type: "conv" kernelsize: 3 ... } bottom: ... }    padding as a layer of its own
    V1   layers { type: CONVOLUTION blobs_lr: 1 ... }
    now  layer { type: "Convolution" param { lr_mult: 1 } ... }             inputs are Input layers

Three differences, so that nothing is lost: fields that no Caffe knows are kept, a V0 net keeps all of its net-level
fields, and where Caffe drops layers with a line in its log (a net of both ``layers`` and ``layer``) this raises.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe_tools.errors import few, nearest
from caffe_tools.prototxt.fields import constant
from caffe_tools.prototxt.message import FieldValue, Message
from caffe_tools.prototxt.upgrade_v0 import fail, v0_to_v1

_V1_TYPES = """
    NONE= ACCURACY=Accuracy BNLL=BNLL CONCAT=Concat CONVOLUTION=Convolution DATA=Data DROPOUT=Dropout
    EUCLIDEAN_LOSS=EuclideanLoss FLATTEN=Flatten HDF5_DATA=HDF5Data HDF5_OUTPUT=HDF5Output IM2COL=Im2col
    IMAGE_DATA=ImageData INFOGAIN_LOSS=InfogainLoss INNER_PRODUCT=InnerProduct LRN=LRN
    MULTINOMIAL_LOGISTIC_LOSS=MultinomialLogisticLoss POOLING=Pooling RELU=ReLU SIGMOID=Sigmoid SOFTMAX=Softmax
    SOFTMAX_LOSS=SoftmaxWithLoss SPLIT=Split TANH=TanH WINDOW_DATA=WindowData ELTWISE=Eltwise POWER=Power
    SIGMOID_CROSS_ENTROPY_LOSS=SigmoidCrossEntropyLoss HINGE_LOSS=HingeLoss MEMORY_DATA=MemoryData ARGMAX=ArgMax
    THRESHOLD=Threshold DUMMY_DATA=DummyData SLICE=Slice MVN=MVN ABSVAL=AbsVal SILENCE=Silence
    CONTRASTIVE_LOSS=ContrastiveLoss EXP=Exp DECONVOLUTION=Deconvolution
"""
V1_TYPES = {name: (number, today) for number, (name, today) in enumerate(w.split("=") for w in _V1_TYPES.split())}
"""The constants of V1's enum, which are numbered from 0 → the number, and today's type."""

V1_DATA_PARAMS = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
V1_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade(net: Message) -> Message:
    """The net in today's form, a new message; a net in that form already comes back equal.

    NetError, with the position in the prototxt, where an old form is used in a way that Caffe refuses.
    """
    net = net.copy()
    if "layers" in net:
        if "layer" in net:
            fail(net.position_of("layer"), "a net has either 'layers' (old) or 'layer': Caffe would drop this one")
        layers = v0_to_v1(net.messages("layers"), net.strings("input"))
        net = _with_layers(net, [_upgrade_v1_layer(layer) for layer in layers])
    if "input" in net:
        net = _with_layers(net, [_input_layer(net), *net.messages("layer")])
        for name in ("input", "input_shape", "input_dim"):
            net.remove(name)
    for layer in net.messages("layer"):
        _freeze_batch_norm(layer)
    return net


def _with_layers(net: Message, layers: list[Message]) -> Message:
    """The net with these layers in the place of its own."""
    old = "layers" if "layers" in net else "layer"
    renamed = Message(net.position)
    for name, value, position in net.items():
        renamed.add("layer" if name == old else name, value, position)
    renamed.set("layer", layers)
    return renamed


def _upgrade_v1_layer(v1: Message) -> Message:
    """UpgradeV1LayerParameter and UpgradeNetDataTransformation."""
    layer = Message(v1.position)
    layer.add_from(v1, "name")
    v1_type = None
    if "type" in v1:
        v1_type = _v1_type(v1)
        layer.add("type", V1_TYPES[v1_type][1], v1.position_of("type"))
    for name in ("bottom", "top", "loss_weight"):
        layer.add_from(v1, name)
    _add_param_specs(v1, layer)
    for name in v1.names():
        if name not in layer and name not in ("blobs_lr", "weight_decay", "blob_share_mode"):
            layer.add_from(v1, name)
    if v1_type in V1_DATA_PARAMS:
        _move_transform_fields(layer, V1_DATA_PARAMS[v1_type])
    return layer


def _v1_type(v1: Message) -> str:
    """The enum constant, which protobuf's text format also takes as a number."""
    value, place = v1.first("type"), v1.position_of("type")
    name = constant(value, {name: number for name, (number, _) in V1_TYPES.items()})
    if name is not None:
        return name
    if type(value) is str:
        fail(place, f"in 'layers' a type is a constant such as CONVOLUTION: write 'layer' for type: \"{value}\"")
    hint = nearest(str(value), V1_TYPES) or f"expected one of {few(V1_TYPES)}"
    fail(place, f"unknown V1 layer type {value}: {hint}")


def _add_param_specs(v1: Message, layer: Message) -> None:
    """One ``param { }`` per blob from the lists of names, share modes and multipliers, which may differ in length."""
    if any(isinstance(value, Message) for value in v1.fields("param")):
        fail(v1.position_of("param"), "in 'layers' a param is a quoted name: write 'layer' where it is 'param { }'")
    columns: dict[str, tuple[str, Sequence[FieldValue]]] = {
        "name": ("param", v1.strings("param")),
        "share_mode": ("blob_share_mode", v1.fields("blob_share_mode")),
        "lr_mult": ("blobs_lr", v1.fields("blobs_lr")),
        "decay_mult": ("weight_decay", v1.fields("weight_decay")),
    }
    for index in range(max(len(values) for _, values in columns.values())):
        spec = Message()
        for name, (old_name, values) in columns.items():
            if index < len(values):
                position = v1.position_of(old_name, index)
                spec.add(name, values[index], position)
                spec.position = spec.position or position
        layer.add("param", spec, spec.position)


def _move_transform_fields(layer: Message, data_param: str) -> None:
    for source in layer.messages(data_param):
        for name in V1_TRANSFORM_FIELDS:
            if name in source:
                if "transform_param" not in layer:
                    layer.add("transform_param", Message(source.position), source.position)
                layer.messages("transform_param")[0].set(name, source.fields(name))
                source.remove(name)


def _input_layer(net: Message) -> Message:
    """One Input layer for all net-level inputs (UpgradeNetInput)."""
    inputs, shapes, dims = net.strings("input"), net.messages("input_shape"), net.fields("input_dim")
    place = net.position_of("input")
    if shapes and len(shapes) < len(inputs) or not shapes and len(dims) < 4 * len(inputs):
        found = f"{len(shapes)} input_shape" if shapes else f"{len(dims)} input_dim"
        fail(place, f"each of the {len(inputs)} inputs needs one input_shape or four input_dim, found {found}")
    layer = Message(place)
    layer.add("name", "input", place)
    layer.add("type", "Input", place)
    for index, name in enumerate(inputs):
        layer.add("top", name, net.position_of("input", index))
    input_param = layer.add("input_param", Message(place), place)
    for index in range(len(inputs)):
        if shapes:
            input_param.add("shape", shapes[index], net.position_of("input_shape", index))
            continue
        shape = input_param.add("shape", Message(net.position_of("input_dim", 4 * index)))
        for axis in range(4 * index, 4 * index + 4):
            shape.add("dim", dims[axis], net.position_of("input_dim", axis))
    return layer


def _freeze_batch_norm(layer: Message) -> None:
    """BatchNorm's three blobs are statistics, which no solver may touch (UpgradeNetBatchNorm)."""
    specs = layer.messages("param") if layer.first("type") == "BatchNorm" else []
    for spec in specs if len(specs) == 3 else []:
        for name in ("lr_mult", "decay_mult"):
            if spec.first(name) != 0:
                spec.set(name, [0])
