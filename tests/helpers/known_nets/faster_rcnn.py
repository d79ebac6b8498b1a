"""Faster R-CNN on VGG16, trained end to end, as it is tested: proposals, and their classes and boxes.

Ren, He, Girshick and Sun, Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015;
names of py-faster-rcnn's pascal_voc/VGG16/faster_rcnn_end2end.
"""

from __future__ import annotations

from known_nets.vgg import body, fully_connected
from known_nets.writer import Prototxt

CLASSES = 21
ANCHORS = 9


def faster_rcnn(divisor: int = 1, height: int = 224, width: int = 224) -> str:
    """``rois`` (image, x1, y1, x2, y2), and for each of them ``cls_prob`` and ``bbox_pred``. The second input is
    ``im_info``: the height, width and scale of the image."""
    net = Prototxt("VGG_ILSVRC_16_layers", divisor)
    net.net_input("data", 1, 3, height, width)
    net.net_input("im_info", 1, 3)
    features = body(net, "data")
    rois = _proposals(net, features)
    pooling = "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }"
    blob = fully_connected(net, net.layer("roi_pool5", "ROIPooling", [features, rois], "pool5", pooling))
    scores = net.inner_product("cls_score", blob, CLASSES, filler="xavier")
    net.inner_product("bbox_pred", blob, 4 * CLASSES, filler="xavier")
    net.softmax("cls_prob", scores)
    return str(net)


def _proposals(net: Prototxt, features: str) -> str:
    blob = net.conv("rpn_conv/3x3", features, net.channels(512), 3, top="rpn/output", pad=1)
    net.relu("rpn_relu/3x3", blob)
    scores = net.conv("rpn_cls_score", blob, 2 * ANCHORS, 1, filler="xavier")
    boxes = net.conv("rpn_bbox_pred", blob, 4 * ANCHORS, 1, filler="xavier")
    blob = net.softmax("rpn_cls_prob", net.reshape("rpn_cls_score_reshape", scores, 0, 2, -1, 0))
    probabilities = net.reshape("rpn_cls_prob_reshape", blob, 0, 2 * ANCHORS, -1, 0)
    return net.layer(
        "proposal",
        "Python",
        [probabilities, boxes, "im_info"],
        "rois",
        r"""python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "\'feat_stride\': 16" }""",
    )
