"""SSD300 on VGG16, and the boxes and scores that every SSD hangs on its feature maps.

Liu and others, SSD: Single Shot MultiBox Detector, 2016; names of VGGNet/VOC0712/SSD_300x300.
"""

from __future__ import annotations

from dataclasses import dataclass

from known_nets.vgg import body
from known_nets.writer import Prototxt

CLASSES = 21


@dataclass(frozen=True)
class Source:
    """A feature map and its prior boxes."""

    blob: str
    min_size: float
    max_size: float | None
    aspect_ratios: tuple[int, ...]
    step: int | None = None

    @property
    def priors(self) -> int:
        """At each position: two squares (one without ``max_size``), and each ratio upright and flat."""
        return (1 if self.max_size is None else 2) + 2 * len(self.aspect_ratios)


SOURCES = (
    Source("conv4_3_norm", 30, 60, (2,), 8),
    Source("fc7", 60, 111, (2, 3), 16),
    Source("conv6_2", 111, 162, (2, 3), 32),
    Source("conv7_2", 162, 213, (2, 3), 64),
    Source("conv8_2", 213, 264, (2,), 100),
    Source("conv9_2", 264, 315, (2,), 300),
)


def ssd300(divisor: int = 1) -> str:
    """``detection_out`` has a row for each detection: image, label, score, xmin, ymin, xmax, ymax."""
    net = Prototxt("VGG_VOC0712_SSD_300x300_deploy", divisor)
    _body(net, net.net_input("data", 1, 3, 300, 300))
    heads(net, SOURCES, kernel=3)
    output = 'output_name_prefix: "comp4_det_test_" output_format: "VOC" num_test_image: 4952'
    detection_output(net, nms_top_k=400, keep_top_k=200, confidence=0.01, text=f"save_output_param {{ {output} }}")
    return str(net)


def ssd300_train(divisor: int = 1, batch: int = 2, objects: int = 3) -> str:
    """The same with its loss. ``label`` has a row for each object: image, label, instance, box, difficult."""
    net = Prototxt("VGG_VOC0712_SSD_300x300_train", divisor)
    net.input("data", batch, 3, 300, 300)
    net.input("label", 1, 1, objects, 8)
    _body(net, "data")
    tops = heads(net, SOURCES, kernel=3)
    net.layer(
        "mbox_loss",
        "MultiBoxLoss",
        [*tops, "label"],
        text="include { phase: TRAIN } propagate_down: [true, true, false, false] loss_param { normalization: VALID }"
        " multibox_loss_param { loc_loss_type: SMOOTH_L1 conf_loss_type: SOFTMAX loc_weight: 1.0"
        f" num_classes: {CLASSES} share_location: true match_type: PER_PREDICTION overlap_threshold: 0.5"
        " use_prior_for_matching: true background_label_id: 0 use_difficult_gt: true neg_pos_ratio: 3.0"
        " neg_overlap: 0.5 code_type: CENTER_SIZE ignore_cross_boundary_bbox: false mining_type: MAX_NEGATIVE }",
    )
    return str(net)


def _body(net: Prototxt, data: str) -> None:
    """VGG16 with a dilated convolution for fc6, and eight more convolutions."""
    blob = net.pool("pool5", body(net, data), "MAX", 3, 1, pad=1)
    blob = net.relu("relu6", net.conv("fc6", blob, net.channels(1024), 3, pad=6, dilation=6))
    blob = net.relu("relu7", net.conv("fc7", blob, net.channels(1024), 1))
    for number, channels, options in (
        (6, 512, {"pad": 1, "stride": 2}),
        (7, 256, {"pad": 1, "stride": 2}),
        (8, 256, {}),
        (9, 256, {}),
    ):
        blob = _conv_relu(net, f"conv{number}_1", blob, 256 if number == 6 else 128, 1)
        blob = _conv_relu(net, f"conv{number}_2", blob, channels, 3, **options)
    scale = 'scale_filler { type: "constant" value: 20 }'
    text = f"norm_param {{ across_spatial: false {scale} channel_shared: false }}"
    net.layer("conv4_3_norm", "Normalize", "conv4_3", text=text)


def _conv_relu(net: Prototxt, name: str, blob: str, channels: int, kernel: int, **options: int) -> str:
    return net.relu(f"{name}_relu", net.conv(name, blob, net.channels(channels), kernel, **options))


def heads(net: Prototxt, sources: tuple[Source, ...], kernel: int) -> tuple[str, str, str]:
    """Boxes, scores and priors of all feature maps, each put into one blob."""
    flat: dict[str, list[str]] = {"loc": [], "conf": [], "priorbox": []}
    for source in sources:
        prefix = f"{source.blob}_mbox_"
        for what, outputs in (("loc", 4), ("conf", CLASSES)):
            blob = net.conv(
                prefix + what, source.blob, source.priors * outputs, kernel, pad=kernel // 2, filler="xavier"
            )
            order = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
            blob = net.layer(f"{prefix}{what}_perm", "Permute", blob, text=order)
            flat[what].append(net.layer(f"{prefix}{what}_flat", "Flatten", blob, text="flatten_param { axis: 1 }"))
        flat["priorbox"].append(_prior_box(net, source, f"{prefix}priorbox"))
    loc, conf = (net.concat(f"mbox_{what}", flat[what]) for what in ("loc", "conf"))
    return loc, conf, net.concat("mbox_priorbox", flat["priorbox"], axis=2)


def _prior_box(net: Prototxt, source: Source, name: str) -> str:
    largest = f" max_size: {source.max_size}" if source.max_size is not None else ""
    ratios = "".join(f" aspect_ratio: {ratio}" for ratio in source.aspect_ratios)
    step = f" step: {source.step}" if source.step is not None else ""
    return net.layer(
        name,
        "PriorBox",
        [source.blob, "data"],
        text=f"prior_box_param {{ min_size: {source.min_size}{largest}{ratios} flip: true clip: false"
        f" variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2{step} offset: 0.5 }}",
    )


def detection_output(net: Prototxt, nms_top_k: int, keep_top_k: int, confidence: float, text: str = "") -> None:
    """The scores as probabilities, and what is left of the boxes after non-maximum suppression."""
    blob = net.softmax("mbox_conf_softmax", net.reshape("mbox_conf_reshape", "mbox_conf", 0, -1, CLASSES), axis=2)
    blob = net.layer("mbox_conf_flatten", "Flatten", blob, text="flatten_param { axis: 1 }")
    net.layer(
        "detection_out",
        "DetectionOutput",
        ["mbox_loc", blob, "mbox_priorbox"],
        text=f"include {{ phase: TEST }} detection_output_param {{ num_classes: {CLASSES} share_location: true"
        f" background_label_id: 0 nms_param {{ nms_threshold: 0.45 top_k: {nms_top_k} }} {text}"
        f" code_type: CENTER_SIZE keep_top_k: {keep_top_k} confidence_threshold: {confidence} }}",
    )
