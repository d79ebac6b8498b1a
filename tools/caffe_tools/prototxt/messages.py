"""The messages of ``caffe.proto`` that several layer types have in common, as declared fields.

Source: Caffe src/caffe/proto/caffe.proto (``FillerParameter``, ``BlobShape``, ``LossParameter``,
``TransformationParameter``, ``PythonParameter``, the ``Engine`` enums).
"""

from caffe_tools.prototxt.fields import (
    Bool,
    Enum,
    Field,
    Float,
    Int,
    OptionalEnum,
    Repeated,
    String,
    Submessage,
    UInt,
    Unread,
)

ENGINE = Enum("DEFAULT", "CAFFE", "CUDNN")

FILLER: dict[str, Field] = {
    "type": String("constant"),
    "value": Float(0.0),
    "min": Float(0.0),
    "max": Float(1.0),
    "mean": Float(0.0),
    "std": Float(1.0),
    "sparse": Int(-1),
    "variance_norm": Enum("FAN_IN", "FAN_OUT", "AVERAGE"),
}

WEIGHT_AND_BIAS = {"bias_term": Bool(True), "weight_filler": Submessage(FILLER), "bias_filler": Submessage(FILLER)}

SHAPE = {"dim": Repeated(Field("int64"))}

LOSS_PARAM = {
    "ignore_label": Int(),
    "normalization": OptionalEnum("FULL", "VALID", "BATCH_SIZE", "NONE"),
    "normalize": Bool(None),
}

TRANSFORM_PARAM = {
    "scale": Float(1.0),
    "mirror": Bool(False),
    "crop_size": UInt(0),
    "mean_file": String(),
    "mean_value": Repeated(Float()),
    "force_color": Bool(False),
    "force_gray": Bool(False),
    # the SSD fork, and NVIDIA's
    **dict.fromkeys(("resize_param", "noise_param", "distort_param", "expand_param", "emit_constraint"), Unread()),
    "crop_h": UInt(0),
    "crop_w": UInt(0),
    "use_gpu_transform": Bool(False),
}
"""What Caffe does to an image before it is a blob."""

PYTHON_PARAM = {"module": String(), "layer": String(), "param_str": String(""), "share_in_parallel": Bool(False)}
