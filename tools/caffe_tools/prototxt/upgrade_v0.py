"""V0 layers, ``layers { layer { type: "conv" kernelsize: 3 } bottom: ... }``, to V1 (BVLC's upgrade_proto.cpp)."""

from __future__ import annotations

import warnings
from typing import NoReturn

from caffe_tools.errors import NetError, few, nearest
from caffe_tools.prototxt.message import Identifier, Message, Position

_SAME_NAME = (
    "accuracy bnll concat data dropout euclidean_loss flatten hdf5_data hdf5_output im2col infogain_loss lrn "
    "multinomial_logistic_loss relu sigmoid softmax softmax_loss split tanh window_data"
)
V0_TYPES = {name: name.upper() for name in _SAME_NAME.split()} | {
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
}
"""Type of a V0 layer → its V1 type."""
V0_PARAMS = {
    "concat": ("concat_param", "concat_dim"),
    "conv": ("convolution_param", "num_output biasterm weight_filler bias_filler pad kernelsize group stride"),
    "data": ("data_param", "source batchsize rand_skip"),
    "dropout": ("dropout_param", "dropout_ratio"),
    "hdf5_data": ("hdf5_data_param", "source batchsize"),
    "images": ("image_data_param", "source batchsize rand_skip shuffle_images new_height new_width"),
    "infogain_loss": ("infogain_loss_param", "source"),
    "innerproduct": ("inner_product_param", "num_output biasterm weight_filler bias_filler"),
    "lrn": ("lrn_param", "local_size alpha beta k"),
    "pool": ("pooling_param", "pool pad kernelsize stride"),
    "window_data": (
        "window_data_param",
        "source batchsize det_fg_threshold det_bg_threshold det_fg_fraction det_context_pad det_crop_mode",
    ),
}
"""Type of a V0 layer → the message and fields that its own parameters move to."""
V0_TRANSFORM_FIELDS = ("scale", "meanfile", "cropsize", "mirror")  # of any V0 layer, to transform_param
V0_RENAMED_FIELDS = {
    "batchsize": "batch_size",
    "biasterm": "bias_term",
    "cropsize": "crop_size",
    "det_bg_threshold": "bg_threshold",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
    "det_fg_fraction": "fg_fraction",
    "det_fg_threshold": "fg_threshold",
    "kernelsize": "kernel_size",
    "meanfile": "mean_file",
    "shuffle_images": "shuffle",
}
_V0_TYPE_FIELDS = {name for _, names in V0_PARAMS.values() for name in names.split()}


def v0_to_v1(layers: list[Message], inputs: list[str]) -> list[Message]:
    """The ``layers`` of a net with every V0 layer as a V1 layer; V1 layers stay as they are.

    NetError for an unknown V0 type and for a padding layer that no convolution or pooling can absorb.
    """
    return [_upgrade_layer(layer) for layer in _fold_padding_layers(layers, inputs)]


def _fold_padding_layers(layers: list[Message], inputs: list[str]) -> list[Message]:
    """Without V0's padding layers: the conv or pool layer that reads one gets its pad (UpgradeV0PaddingLayers)."""
    producers: dict[str, Message | None] = dict.fromkeys(inputs)
    kept = []
    for layer in layers:
        v0_type = _v0_type(layer)
        for index, bottom in enumerate(layer.strings("bottom")):
            padding = producers.get(bottom)
            if padding is None or _v0_type(padding) != "padding":
                continue
            place = layer.position_of("bottom", index)
            if v0_type not in ("conv", "pool") or len(layer.strings("bottom")) != 1:
                fail(place, f"'{bottom}' comes from a padding layer, which only a conv or pool layer can read, alone")
            if len(padding.strings("bottom")) != 1 or len(padding.strings("top")) != 1:
                fail(padding.position, "a padding layer has one bottom and one top")
            layer.messages("layer")[0].set("pad", padding.messages("layer")[0].fields("pad")[:1] or [0])
            layer.set("bottom", padding.strings("bottom"))
        if v0_type != "padding":
            kept.append(layer)
        producers.update(dict.fromkeys(layer.strings("top"), layer))
    return kept


def _v0_type(connection: Message) -> str | None:
    """The type of the V0 layer in a ``layers`` entry; None where it is a V1 layer."""
    v0_layers = connection.messages("layer")
    if len(v0_layers) > 1:
        fail(connection.position_of("layer", 1), "a second 'layer {' in one 'layers {'")
    return (v0_layers[0].strings("type") or [""])[0] if v0_layers else None


def _upgrade_layer(connection: Message) -> Message:
    """A V0 layer as a V1 layer (UpgradeV0LayerParameter); a V1 layer as it is."""
    v0_type = _v0_type(connection)
    if v0_type is None:
        return connection
    for name in connection.names():
        if name not in ("layer", "bottom", "top"):
            place = connection.position_of(name)
            fail(place, f"'{name}' beside a V0 'layer {{' is ignored by Caffe: move it inside or remove it")
    v0 = connection.messages("layer")[0]
    if v0_type not in V0_TYPES:
        hint = nearest(v0_type, V0_TYPES) or f"expected one of {few(sorted(V0_TYPES))}"
        fail(v0.position_of("type"), f"unknown V0 layer type {v0_type!r}: {hint}")
    param_name, own_fields = V0_PARAMS.get(v0_type, ("", ""))
    v1 = Message(connection.position)
    moved = {"transform_param": Message(v0.position), param_name: Message(v0.position)}
    for name, value, position in v0.items():
        new_name = V0_RENAMED_FIELDS.get(name, name)
        if name == "type":
            v1.add("type", Identifier(V0_TYPES[v0_type]), position)
        elif name in own_fields.split():
            moved[param_name].add(new_name, value, position)
        elif name in V0_TRANSFORM_FIELDS:
            moved["transform_param"].add(new_name, value, position)
        elif name in _V0_TYPE_FIELDS:
            warnings.warn(f"{position}: '{name}' means nothing in a {v0_type} layer and is dropped", stacklevel=5)
        else:
            v1.add(name, value, position)
    v1.add_from(connection, "bottom")
    v1.add_from(connection, "top")
    for name, message in moved.items():
        if len(message):
            v1.add(name, message, message.position)
    return v1


def fail(position: Position | None, problem: str) -> NoReturn:
    """Raise NetError, with the place in the prototxt where it has one."""
    raise NetError(f"{position}: {problem}" if position else problem)
