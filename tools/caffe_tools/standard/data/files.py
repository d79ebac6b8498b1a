"""Layers that read databases and files in Caffe: Data, ImageData, HDF5Data, MemoryData, WindowData, and the SSD fork's
AnnotatedData; and HDF5Output, which writes a file.

Here nobody reads or writes: their tops are inputs, fed from outside like those of an Input layer, with the shapes that
the parameters tell.

Source: Caffe src/caffe/layers/data_layer.cpp, image_data_layer.cpp, hdf5_data_layer.cpp, memory_data_layer.cpp,
window_data_layer.cpp, hdf5_output_layer.cpp; SSD fork src/caffe/layers/annotated_data_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from caffe_tools.errors import nearest
from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt import fields
from caffe_tools.prototxt.fields import Bool, Enum, Field, Float, Repeated, String, UInt, Unread, Values
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.messages import TRANSFORM_PARAM
from caffe_tools.standard.data.input import Source, transform_of
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type

DATA_PARAM = {
    "source": String(),
    "batch_size": UInt(0),
    "rand_skip": UInt(0),
    "backend": Enum("LEVELDB", "LMDB"),
    "force_encoded_color": Bool(False),
    "prefetch": UInt(4),
}
ANNOTATED_DATA_PARAM = {"batch_sampler": Repeated(Unread()), "label_map_file": String(), "anno_type": Unread()}
LISTED_FILES = {"source": String(), "root_folder": String("")}
RESIZE_PARAM = {
    "height": UInt(0),
    "width": UInt(0),
    **dict.fromkeys(("prob", "resize_mode", "height_scale", "width_scale", "pad_mode"), Unread()),
    **dict.fromkeys(("pad_value", "interp_mode"), Repeated(Unread())),
}

reads_images = partial(layer_type, bottoms=0, is_source=True, transform_param=TRANSFORM_PARAM)
"""The declaration of a type that makes images, and labels for them."""


def _read(layer: Layer, name: str) -> Values:
    """A message of a data layer."""
    found = layer.spec.message.messages(name)
    return _tolerant(layer, found[0] if found else None, layer.type.messages[name], name)


def _tolerant(layer: Layer, message: Message | None, declared: Mapping[str, Field], name: str) -> Values:
    """The message; forks have more fields in it, which say how data is made that is fed here. Slips are refused."""
    for field in message.names() if message else ():
        if field not in declared:
            if hint := nearest(field, declared, cutoff=0.8):
                raise layer.error(f"{name} has no field {field!r}: {hint}", name)
            layer.note(f"{name}: {field} changes nothing: it says how data is made, which is fed here", name)
    return fields.read(message, declared, f"{layer.spec}: {name}", ignore_unknown=True)


def _batch_size(layer: Layer, p: Values) -> int:
    if not p.batch_size:
        raise layer.error("batch_size is missing or 0")
    return p.batch_size


def _images(layer: Layer, batch: int, channels: int, size: tuple[int, int] | None) -> list[Source]:
    """The images, and the label of each where a second top is there; ``size`` where no crop_size tells another."""
    transform = _read(layer, "transform_param")
    if transform.force_color and transform.force_gray:
        raise layer.error("give force_color or force_gray, not both")
    if transform.crop_size or (transform.crop_h and transform.crop_w):
        size = (transform.crop_h or transform.crop_size, transform.crop_w or transform.crop_size)
    channels = 3 if transform.force_color else 1 if transform.force_gray else channels
    images = Source((batch, channels, *size) if size else None, transform=transform_of(layer))
    return [images, Source((batch,))][: layer.top_count]


@reads_images("Data", tops=(1, 2), data_param=DATA_PARAM)
def data(layer: Layer) -> list[Source]:
    """Images of a database, batch × channels × crop_size × crop_size, and their labels; inputs here.

    Without crop_size the database alone knows the images' size, and they must be given a shape. They have 3 channels,
    or 1 with force_gray.
    """
    return _images(layer, _batch_size(layer, _read(layer, "data_param")), 3, None)


@reads_images("AnnotatedData", tops=(1, 2), data_param=DATA_PARAM, annotated_data_param=ANNOTATED_DATA_PARAM)
def annotated_data(layer: Layer) -> list[Source]:
    """Images of a database, resized as transform_param's resize_param says, and 1 × 1 × boxes × 8 for the boxes in them
    (image, label, instance, xmin, ymin, xmax, ymax, difficult); inputs here.

    How many boxes there are the database alone knows: they must be given a shape.
    """
    transforms = layer.spec.message.messages("transform_param")
    resized = transforms[0].messages("resize_param") if transforms else []
    p = _tolerant(layer, resized[0] if resized else None, RESIZE_PARAM, "resize_param")
    size = (p.height, p.width) if p.height and p.width else None
    images, *_ = _images(layer, _batch_size(layer, _read(layer, "data_param")), 3, size)
    _read(layer, "annotated_data_param")
    return [images, Source(None)][: layer.top_count]


@reads_images(
    "ImageData",
    tops=2,
    image_data_param={
        **LISTED_FILES,
        "batch_size": UInt(1),
        "rand_skip": UInt(0),
        "shuffle": Bool(False),
        "new_height": UInt(0),
        "new_width": UInt(0),
        "is_color": Bool(True),
    },
)
def image_data(layer: Layer) -> list[Source]:
    """Images of files, cropped to crop_size or resized to new_height × new_width, and their labels; inputs here."""
    p = _read(layer, "image_data_param")
    if bool(p.new_height) != bool(p.new_width):
        raise layer.error("give both new_height and new_width, or neither")
    size = (p.new_height, p.new_width) if p.new_height else None
    return _images(layer, _batch_size(layer, p), 3 if p.is_color else 1, size)


@reads_images(
    "WindowData",
    tops=2,
    window_data_param={
        **LISTED_FILES,
        "batch_size": UInt(0),
        "fg_threshold": Float(0.5),
        "bg_threshold": Float(0.5),
        "fg_fraction": Float(0.25),
        "context_pad": UInt(0),
        "crop_mode": String("warp"),
        "cache_images": Bool(False),
    },
)
def window_data(layer: Layer) -> list[Source]:
    """Windows of images, batch × 3 × crop_size × crop_size, and their labels; inputs here."""
    return _images(layer, _batch_size(layer, _read(layer, "window_data_param")), 3, None)


@reads_images(
    "MemoryData",
    tops=2,
    memory_data_param={"batch_size": UInt(0), "channels": UInt(0), "height": UInt(0), "width": UInt(0)},
)
def memory_data(layer: Layer) -> list[Source]:
    """Images that a program hands over, batch_size × channels × height × width, and their labels; inputs here."""
    p = _read(layer, "memory_data_param")
    shape = (p.batch_size, p.channels, p.height, p.width)
    if 0 in shape:
        raise layer.error("give batch_size, channels, height and width, each 1 or more")
    return [Source(shape, transform=transform_of(layer)), Source((p.batch_size,))]


@layer_type(
    "HDF5Data",
    bottoms=0,
    tops=(1, None),
    is_source=True,
    hdf5_data_param={"source": String(), "batch_size": UInt(0), "shuffle": Bool(False)},
    transform_param={},
)
def hdf5_data(layer: Layer) -> list[Source]:
    """The arrays of HDF5 files, one top for each; inputs here, which must be given shapes: only the files know them."""
    if "transform_param" in layer.spec.message:
        raise layer.error("it does not transform data: it takes no transform_param", "transform_param")
    _read(layer, "hdf5_data_param")
    return [Source(None) for _ in range(layer.top_count)]


@layer_type("HDF5Output", bottoms=2, tops=0, hdf5_output_param={"file_name": String()})
def hdf5_output(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """Nothing: in Caffe it writes its bottoms to a file."""
    return ()
