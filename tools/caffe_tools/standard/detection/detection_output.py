"""DetectionOutput: an SSD's predictions decoded, thinned out by NMS, and listed.

Source: Caffe-SSD src/caffe/layers/detection_output_layer.cpp, src/caffe/util/bbox_util.cpp.
"""

from __future__ import annotations

import numpy as np

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Float, Int, String, Submessage, UInt, Unread, Values
from caffe_tools.standard.detection.boxes import CODE_TYPE, decode
from caffe_tools.standard.detection.nms import (
    adaptive_nms,
    among_the_best,
    flat_places,
    non_maximum_suppression,
    without_inverted,
)
from caffe_tools.standard.examples import prior_boxes
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.registry import layer_type

NMS_PARAM = {"nms_threshold": Float(0.3), "top_k": Int(), "eta": Float(1.0)}


@layer_type(
    "DetectionOutput",
    bottoms=3,
    detection_output_param={
        "num_classes": UInt(),
        "share_location": Bool(True),
        "background_label_id": Int(0),
        "nms_param": Submessage(NMS_PARAM),
        "save_output_param": Unread(),
        "code_type": CODE_TYPE,
        "variance_encoded_in_target": Bool(False),
        "keep_top_k": Int(-1),
        "confidence_threshold": Float(),
        "visualize": Bool(False),
        "visualize_threshold": Float(),
        "save_file": String(),
    },
)
def detection_output(op: Builder, layer: Layer, code: ir.Value, scores: ir.Value, priors: ir.Value) -> ir.Value:
    """1 × 1 × found × 7: a row (image, label, score, xmin, ymin, xmax, ymax) for each detection.

    Bottoms: the coded boxes (N × P·4, or N × P·classes·4 where ``share_location`` is false), the scores (N × P·classes)
    and PriorBox's boxes and variances (1 × 2 × P·4). For each image and class the ``top_k`` best boxes that score above
    ``confidence_threshold`` go through NMS, then each image keeps its ``keep_top_k`` best. Rows stand by image, class,
    falling score. Where nothing is found, each image has one row (image, −1, …, −1). No gradient passes.
    """
    p = layer.detection_output_param
    _check(op, layer, code, scores, priors)
    layer.examples[2] = prior_boxes
    labels = np.array([label for label in range(p.num_classes) if label != p.background_label_id])
    boxes = _decoded(op, layer, code, priors, labels)
    scores_ = op.Transpose(op.Reshape(scores, [0, -1, p.num_classes]), perm=[0, 2, 1])
    scores_ = op.Gather(scores_, labels, axis=1)
    found = _suppressed(op, layer, boxes, scores_)
    if p.keep_top_k >= 0:
        found = _best_of_each_image(op, scores_, found, p.keep_top_k)
    rows = _rows(op, layer, boxes, scores_, found, labels)
    return op.without_gradient(rows, code, scores, priors)


def _check(op: Builder, layer: Layer, code: ir.Value, scores: ir.Value, priors: ir.Value) -> None:
    """NetError where parameters or shapes do not fit."""
    p = layer.detection_output_param
    if not p.num_classes:
        raise layer.error("num_classes is missing", "detection_output_param")
    if p.share_location and p.background_label_id == -1:
        raise layer.error("background_label_id -1 goes with share_location: false (Caffe aborts)")
    if not 0 < p.nms_param.eta <= 1 or not p.nms_param.nms_threshold >= 0:
        raise layer.error(
            f"nms_param must have nms_threshold 0 or more and eta above 0, at most 1,"
            f" not {p.nms_param.nms_threshold:g} and {p.nms_param.eta:g}"
        )
    shape = op.shape(priors)
    is_known = len(shape) > 2 and isinstance(shape[2], int)
    if len(shape) < 3 or shape[1] != 2 or (is_known and shape[2] % 4):
        raise layer.misfit(2, shape, ", but must be PriorBox's 1×2×4K")
    if is_known:  # else as many as an image has whose size only the running graph knows
        check_predictions(layer, code, scores, shape[2] // 4, p)


def check_predictions(layer: Layer, code: ir.Value, scores: ir.Value, count: int, p: Values) -> None:
    """NetError where the first two bottoms are not codes and scores for ``count`` priors."""
    classes = 1 if p.share_location else p.num_classes
    for index, value, width in ((0, code, count * classes * 4), (1, scores, count * p.num_classes)):
        shape = Builder.shape(value)
        if len(shape) < 2 or shape[1] != width or any(dim != 1 for dim in shape[2:]):
            raise layer.misfit(index, shape, f", but {count} priors need N×{width}")


def _decoded(op: Builder, layer: Layer, code: ir.Value, priors: ir.Value, labels: np.ndarray) -> ir.Value:
    """N × P × 4, or N × labels × P × 4 where each class has boxes of its own."""
    p = layer.detection_output_param
    pair = op.Reshape(op.Slice(priors, [0], [1], [0]), [2, -1, 4])
    prior, variance = op.Split(pair, [1, 1], axis=0, outputs=2)
    if p.share_location:
        code = op.Reshape(code, [0, -1, 4])
    else:
        code = op.Gather(op.Reshape(code, [0, -1, p.num_classes, 4]), labels, axis=2)
        code = op.Transpose(code, perm=[0, 2, 1, 3])
        prior, variance = op.Unsqueeze(prior, [0]), op.Unsqueeze(variance, [0])
    return decode(op, p.code_type, code, prior, None if p.variance_encoded_in_target else variance)


def _suppressed(op: Builder, layer: Layer, boxes: ir.Value, scores: ir.Value) -> ir.Value:
    """Rows (image, class, box) of what NMS keeps, by image, class and falling score; classes without the background."""
    p, nms = layer.detection_output_param, layer.detection_output_param.nms_param
    if nms.top_k is not None and nms.top_k >= 0:
        scores = op.Where(among_the_best(op, scores, nms.top_k), scores, -np.inf)
    boxes = without_inverted(op, boxes)
    # eta lowers the threshold after each box kept, for as long as it is above 0.5
    is_adaptive = nms.eta < 1 and nms.nms_threshold > 0.5
    if p.share_location and not is_adaptive:
        return non_maximum_suppression(op, boxes, scores, nms.nms_threshold, p.confidence_threshold)
    classes, count = op.shape(scores)[1], op.dims(scores, [2])
    if p.share_location:
        boxes = op.Expand(op.Unsqueeze(boxes, [1]), [1, classes, 1, 1])
    # every class of every image as an image of its own
    boxes = op.Reshape(boxes, op.Concat(op.constant([-1]), count, op.constant([4]), axis=0))
    scores = op.Reshape(scores, op.Concat(op.constant([-1, 1]), count, axis=0))
    if is_adaptive:
        found = adaptive_nms(op, boxes, scores, nms.nms_threshold, nms.eta, p.confidence_threshold)
    else:
        found = non_maximum_suppression(op, boxes, scores, nms.nms_threshold, p.confidence_threshold)
    table, _, box = op.Split(found, [1, 1, 1], axis=1, outputs=3)
    return op.Concat(op.Div(table, classes), op.Mod(table, classes), box, axis=1)


def _best_of_each_image(op: Builder, scores: ir.Value, found: ir.Value, keep: int) -> ir.Value:
    """The rows of ``found`` whose scores are among the ``keep`` best of their image."""
    flat = op.Reshape(scores, [-1])
    place = flat_places(op, scores, *op.Split(found, [1, 1, 1], axis=1, outputs=3))
    none = op.Expand(op.constant(-np.inf, scores.dtype.numpy()), op.Shape(flat))
    kept = op.ScatterElements(none, place, op.Gather(flat, place), axis=0)
    kept = op.Reshape(kept, op.Concat(op.dims(scores, [0]), [-1], axis=0))
    best = op.Gather(op.Reshape(among_the_best(op, kept, keep), [-1]), place)
    return op.Gather(found, op.Squeeze(op.NonZero(best), [0]))


def _rows(
    op: Builder, layer: Layer, boxes: ir.Value, scores: ir.Value, found: ir.Value, labels: np.ndarray
) -> ir.Value:
    """1 × 1 × found × 7; without any row in ``found`` one for each image."""
    image, class_, box = op.Split(found, [1, 1, 1], axis=1, outputs=3)
    label = op.Gather(op.constant(labels), class_)
    score_place = flat_places(op, scores, image, class_, box)
    box_place = flat_places(op, boxes, image, box) if layer.detection_output_param.share_location else score_place
    score = op.Unsqueeze(op.Gather(op.Reshape(scores, [-1]), score_place), [1])
    corners = op.Gather(op.Reshape(boxes, [-1, 4]), box_place)
    rows = op.Concat(op.cast(image, scores), op.cast(label, scores), score, corners, axis=1)
    images = op.cast(op.count(scores, [0]), "int64")
    if_none = op.Where(op.Equal(op.dims(found, [0]), 0), images, op.constant(0))
    numbers = op.Unsqueeze(op.cast(op.Range(op.constant(0), op.Squeeze(if_none, [0]), op.constant(1)), scores), [1])
    nothing = op.Pad(numbers, [0, 0, 0, 6], -1.0)
    return op.Unsqueeze(op.Concat(rows, nothing, axis=0), [0, 1])
