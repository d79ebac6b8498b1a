"""MultiBoxLoss: an SSD's loss of boxes and classes.

Source: Caffe-SSD src/caffe/layers/multibox_loss_layer.cpp, src/caffe/util/bbox_util.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.prototxt.fields import Bool, Enum, Float, Int, Submessage, UInt
from caffe_tools.prototxt.messages import LOSS_PARAM
from caffe_tools.standard.detection.box_matching import GroundTruth, Matches, hardest, match, read_ground_truth
from caffe_tools.standard.detection.boxes import CODE_TYPE, decode, encode
from caffe_tools.standard.detection.detection_output import NMS_PARAM, check_predictions
from caffe_tools.standard.examples import ground_truth, prior_boxes
from caffe_tools.standard.layer import FLT_MIN, Layer
from caffe_tools.standard.registry import REAL, layer_type


@layer_type(
    "MultiBoxLoss",
    bottoms=4,
    is_loss=True,
    labels={2: REAL, 3: REAL},
    loss_param=LOSS_PARAM,
    multibox_loss_param={
        "loc_loss_type": Enum("L2", "SMOOTH_L1", default="SMOOTH_L1"),
        "conf_loss_type": Enum("SOFTMAX", "LOGISTIC"),
        "loc_weight": Float(1.0),
        "num_classes": UInt(),
        "share_location": Bool(True),
        "match_type": Enum("BIPARTITE", "PER_PREDICTION", default="PER_PREDICTION"),
        "overlap_threshold": Float(0.5),
        "use_prior_for_matching": Bool(True),
        "background_label_id": UInt(0),
        "use_difficult_gt": Bool(True),
        "do_neg_mining": Bool(None),
        "neg_pos_ratio": Float(3.0),
        "neg_overlap": Float(0.5),
        "code_type": CODE_TYPE,
        "encode_variance_in_target": Bool(False),
        "map_object_to_agnostic": Bool(False),
        "ignore_cross_boundary_bbox": Bool(False),
        "bp_inside": Bool(False),
        "mining_type": Enum("NONE", "MAX_NEGATIVE", "HARD_EXAMPLE", default="MAX_NEGATIVE"),
        "nms_param": Submessage(NMS_PARAM),
        "sample_size": Int(64),
        "use_prior_for_nms": Bool(False),
    },
)
def multi_box_loss(
    op: Builder, layer: Layer, code: ir.Value, scores: ir.Value, priors: ir.Value, truth: ir.Value
) -> ir.Value:
    """(loc_weight · Σ f(code − coded truth) + Σ −log p(label)) / divisor, over matched priors and mined negatives.

    Bottoms: coded boxes (N × P·4, or N × P·classes·4 without ``share_location``), scores (N × P·classes), PriorBox's
    boxes and variances (1 × 2 × P·4), and rows of ground truth (1 × 1 × G × 8). f is SmoothL1's or half the square, p a
    softmax, or LOGISTIC the cross-entropy of each class. The divisor (VALID) is the number of matched priors. Which
    priors are matched and mined is a constant of the gradient.
    """
    p = layer.multibox_loss_param
    count = _check(op, layer, code, scores, priors, truth)
    layer.examples |= {2: prior_boxes, 3: ground_truth(op.shape(code)[0], p.num_classes, p.background_label_id)}
    batch = op.dims(code, [0])
    prior, variance = op.Split(op.reshape(op.Slice(priors, [0], [1], [0]), [2, count, 4]), [1, 1], axis=0, outputs=2)
    rows = read_ground_truth(op, truth, op.Squeeze(batch, [0]), p.use_difficult_gt)
    codes = op.reshape(code, [op.shape(code)[0], count, -1, 4])
    boxes = prior
    if not p.use_prior_for_matching:
        scale = None if p.encode_variance_in_target else variance
        boxes = op.Gather(decode(op, p.code_type, op.Squeeze(codes, [2]), prior, scale), rows.image, axis=0)
    each = p.match_type == "PER_PREDICTION"
    matches = match(op, rows, boxes, batch, each, p.overlap_threshold, p.ignore_cross_boundary_bbox)
    location = _location(op, layer, codes, prior, variance, rows, matches)
    confidence = _confidence(op, layer, scores, rows, matches, count)
    matched = op.GreaterOrEqual(matches.index, 0)
    matched, used = _mined(op, layer, prior, matches, matched, location, confidence)
    divisor = _divisor(op, layer, matched, count, scores)
    weight = op.cast(matched, scores)
    included = layer.spec.propagate_down or [True, True]
    parts = []
    if included[0]:
        parts.append(op.Mul(op.ReduceSum(op.Where(matched, location.losses, 0), keepdims=0), p.loc_weight))
    if included[1]:
        parts.append(op.ReduceSum(op.Where(used, confidence.losses, 0), keepdims=0))
    loss = op.Div(op.Sum(*parts) if parts else op.constant(0.0), divisor)

    def gradient(dloss: ir.Value) -> list[ir.Value | None]:
        scale = op.Div(dloss, divisor)
        dcode = op.Mul(location.slope, op.Unsqueeze(op.Mul(op.Mul(weight, p.loc_weight), scale), [2]))
        dscores = op.Where(op.Unsqueeze(used, [2]), op.Mul(confidence.slope, scale), 0)
        # to the class whose code was compared
        dcodes = op.ScatterElements(op.zeros(codes), location.place, op.Unsqueeze(dcode, [2]), axis=2)
        back = [
            op.Reshape(diff, op.dims(like, range(len(op.shape(like)))))
            for diff, like in ((dcodes, code), (dscores, scores))
        ]
        return [*back, None, None]

    op.define_gradient([loss], [code, scores, priors, truth], gradient)
    return loss


def _check(op: Builder, layer: Layer, code: ir.Value, scores: ir.Value, priors: ir.Value, truth: ir.Value) -> int:
    """The number of priors; NetError where parameters or shapes do not fit."""
    p = layer.multibox_loss_param
    if not p.num_classes:
        raise layer.error("num_classes is missing", "multibox_loss_param")
    if p.background_label_id >= p.num_classes:
        raise layer.error(f"background_label_id {p.background_label_id} must be one of {p.num_classes} classes")
    if p.do_neg_mining is not None and p.do_neg_mining != (p.mining_type != "NONE"):
        raise layer.error(f"do_neg_mining contradicts mining_type {p.mining_type}: leave it out")
    if p.mining_type != "NONE" and not p.share_location:
        raise layer.error("without share_location it mines nothing: give mining_type: NONE")
    if p.map_object_to_agnostic and p.num_classes != 2:
        raise layer.error("map_object_to_agnostic goes with num_classes: 2")
    if not p.use_prior_for_matching and not p.share_location:
        raise layer.error("use_prior_for_matching: false is covered with share_location alone")
    if "nms_param" in p.given and p.mining_type != "NONE":
        raise layer.error("nms_param (NMS before mining) is not covered")
    shape = op.shape(priors)
    if len(shape) < 3 or not isinstance(shape[2], int) or shape[2] % 4 or shape[1] != 2:
        raise layer.misfit(2, shape, ", but must be PriorBox's 1×2×4K, K a fixed number")
    count = shape[2] // 4
    check_predictions(layer, code, scores, count, p)
    if op.shape(truth)[-1:] != (8,):
        row = "(image, label, instance, xmin, ymin, xmax, ymax, difficult) a row"
        raise layer.misfit(3, truth, f", but must be 1×1×G×8: {row}")
    return count


@dataclass(frozen=True)
class _Part:
    """The loss of each prior (N × P) and its slope by what was predicted (N × P × …); ``place`` (N × P × 1 × 4): of
    which class the predicted code is."""

    losses: ir.Value
    slope: ir.Value
    place: ir.Value | None = None


def _location(
    op: Builder,
    layer: Layer,
    codes: ir.Value,
    prior: ir.Value,
    variance: ir.Value,
    truth: GroundTruth,
    matches: Matches,
) -> _Part:
    """As if every prior were matched; those that are not count for nothing later."""
    p = layer.multibox_loss_param
    index = op.Max(matches.index, 0)
    target = encode(
        op,
        p.code_type,
        op.Gather(truth.corners, index, axis=0),
        prior,
        None if p.encode_variance_in_target else variance,
    )
    class_ = op.Mul(index, 0) if p.share_location else op.Gather(truth.label, index)
    place = op.Expand(op.Unsqueeze(class_, [2, 3]), op.constant([1, 1, 1, 4]))
    predicted = op.Squeeze(op.GatherElements(codes, place, axis=2), [2])
    difference = op.Sub(predicted, target)
    if p.encode_variance_in_target:
        difference = op.Div(difference, variance)  # and Caffe's gradient knows nothing of it
    if p.bp_inside:
        box = prior
        if not p.use_prior_for_matching:
            box = decode(op, p.code_type, predicted, prior, None if p.encode_variance_in_target else variance)
        difference = op.Where(op.And(op.GreaterOrEqual(box, 0), op.LessOrEqual(box, 1)), difference, 0)
    half_square = op.Mul(op.Mul(difference, difference), 0.5)
    if p.loc_loss_type == "L2":
        losses, slope = half_square, difference
    else:
        size = op.Abs(difference)
        is_small = op.Less(size, 1)
        losses = op.Where(is_small, half_square, op.Sub(size, 0.5))
        slope = op.Where(is_small, difference, op.Sign(difference))
    # what is compared with no ground truth may be no number
    slope = op.Where(op.GreaterOrEqual(op.Unsqueeze(matches.index, [2]), 0), slope, 0)
    return _Part(op.ReduceSum(losses, [2], keepdims=0), slope, place)


def _confidence(op: Builder, layer: Layer, scores: ir.Value, truth: GroundTruth, matches: Matches, count: int) -> _Part:
    """The loss of every prior, matched ones with their label and others with the background."""
    p, background = layer.multibox_loss_param, layer.multibox_loss_param.background_label_id
    x = op.reshape(scores, [op.shape(scores)[0], count, p.num_classes])
    matched = op.GreaterOrEqual(matches.index, 0)
    label = op.Gather(truth.label, op.Max(matches.index, 0))
    if p.map_object_to_agnostic:
        label = op.Add(op.Mul(label, 0), background + 1)
    label = op.Unsqueeze(op.Where(matched, label, background), [2])
    if p.conf_loss_type == "SOFTMAX":
        probability = op.Softmax(x, axis=2)
        picked = op.GatherElements(probability, label, axis=2)
        slope = op.ScatterElements(probability, label, op.Sub(picked, 1), axis=2)
        return _Part(op.Neg(op.Log(op.Max(op.Squeeze(picked, [2]), FLT_MIN))), slope)
    target = _logistic_target(op, layer, x, matched, label)
    losses = op.Add(op.Sub(op.Relu(x), op.Mul(x, target)), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1)))
    return _Part(op.ReduceSum(losses, [2], keepdims=0), op.Sub(op.Sigmoid(x), target))


def _logistic_target(op: Builder, layer: Layer, x: ir.Value, matched: ir.Value, label: ir.Value) -> ir.Value:
    """1 for the label; the others have what Caffe fills its buffer with, the number of the background."""
    p = layer.multibox_loss_param
    filled = op.Add(op.zeros(x), float(p.background_label_id))
    ones = op.Add(op.cast(op.Mul(label, 0), x), 1)
    if p.mining_type != "NONE":
        return op.ScatterElements(filled, label, ones, axis=2)
    # without mining Caffe counts P targets an image instead of P · classes, and gives unmatched priors none at all
    priors, classes = op.shape(x)[1:]
    image = op.Reshape(op.places(x, 0), [-1, 1])
    prior = op.Range(op.constant(0), op.constant(priors), op.constant(1))
    place = op.Add(op.Add(op.Mul(image, priors), op.Mul(prior, classes)), op.Squeeze(label, [2]))
    flat = op.Reshape(filled, [-1])
    kept = op.Compress(op.Reshape(place, [-1]), op.Reshape(matched, [-1]))
    set_ = op.Add(op.cast(op.Mul(kept, 0), x), 1)
    return op.Reshape(op.ScatterElements(flat, kept, set_, axis=0), op.dims(x, range(3)))


def _mined(
    op: Builder, layer: Layer, prior: ir.Value, matches: Matches, matched: ir.Value, location: _Part, confidence: _Part
) -> tuple[ir.Value, ir.Value]:
    """N × P: which priors count as matched, and which count for the confidence."""
    p = layer.multibox_loss_param
    everywhere = op.GreaterOrEqual(matches.index, -1)
    if p.mining_type == "NONE":
        return matched, everywhere
    unmatched = op.And(op.Not(matched), matches.has_truth)
    if p.ignore_cross_boundary_bbox:
        inside = op.And(op.GreaterOrEqual(prior, 0), op.LessOrEqual(prior, 1))
        unmatched = op.And(unmatched, op.Equal(op.ReduceMin(op.cast(inside, "int64"), [2], keepdims=0), 1))
    if p.mining_type == "MAX_NEGATIVE":
        eligible = op.And(unmatched, op.Less(matches.overlap, p.neg_overlap))
        positives = op.ReduceSum(op.cast(matched, confidence.losses), [1], keepdims=1)
        number = op.cast(op.Mul(positives, p.neg_pos_ratio), "int64")
        return matched, op.Or(matched, hardest(op, confidence.losses, eligible, number))
    losses = op.Add(confidence.losses, op.Where(matched, location.losses, 0))
    chosen = hardest(op, losses, op.And(everywhere, matches.has_truth), op.constant([[p.sample_size]]))
    matched = op.And(matched, chosen)
    return matched, op.Or(matched, op.And(unmatched, chosen))


def _divisor(op: Builder, layer: Layer, matched: ir.Value, count: int, scores: ir.Value) -> ir.Value:
    p = layer.loss_param
    mode = p.normalization
    if mode is None:
        mode = "VALID" if p.normalize is None or p.normalize else "BATCH_SIZE"
    if mode == "NONE":
        return op.constant(1.0)
    if mode == "VALID":
        number = op.ReduceSum(op.cast(matched, scores), keepdims=0)
    else:
        number = op.count(scores, [0])
        if mode == "FULL":
            number = op.Mul(number, float(count))
    return op.Max(number, 1)
