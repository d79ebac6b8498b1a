"""The nets that users bring have their published shapes and sizes, and export with the numbers of their layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caffe_tools.check.check import check
from caffe_tools.net import standard_layer
from caffe_tools.net.net import Net
from known_nets.caffenet import caffenet
from known_nets.faster_rcnn import faster_rcnn
from known_nets.fcn import fcn8s
from known_nets.googlenet import googlenet, googlenet_train
from known_nets.mobilenet_ssd import mobilenet_ssd
from known_nets.resnet import resnet50
from known_nets.ssd import ssd300, ssd300_train
from known_nets.vgg import vgg16
from nets import drawn_net, net_of
from tables import shapes

RANDOM_SEED = 4
SHAPES = {
    caffenet: shapes(
        """
        conv1 10×96×55×55
        norm1 10×96×27×27
        norm2 10×256×13×13
        pool5 10×256×6×6
        fc7 10×4096
        prob 10×1000
        """
    ),
    vgg16: shapes(
        """
        pool1 10×64×112×112
        conv5_3 10×512×14×14
        pool5 10×512×7×7
        fc6 10×4096
        prob 10×1000
        """
    ),
    googlenet: shapes(
        """
        conv1/7x7_s2 10×64×112×112
        pool2/3x3_s2 10×192×28×28
        inception_3a/output 10×256×28×28
        inception_3b/output 10×480×28×28
        inception_4e/output 10×832×14×14
        inception_5b/output 10×1024×7×7
        pool5/7x7_s1 10×1024×1×1
        prob 10×1000
        """
    ),
    googlenet_train: shapes(
        """
        data 32×3×224×224
        label 32
        loss1/ave_pool 32×512×4×4
        loss2/ave_pool 32×528×4×4
        loss1/loss1
        loss2/loss1
        loss3/loss3
        """
    ),
    resnet50: shapes(
        """
        conv1 1×64×112×112
        pool1 1×64×56×56
        res2c 1×256×56×56
        res3d 1×512×28×28
        res4f 1×1024×14×14
        res5c 1×2048×7×7
        pool5 1×2048×1×1
        prob 1×1000
        """
    ),
    fcn8s: shapes(
        """
        conv1_1 1×64×698×698
        pool5 1×512×22×22
        fc7 1×4096×16×16
        upscore2 1×21×34×34
        upscore_pool4 1×21×70×70
        upscore8 1×21×568×568
        score 1×21×500×500
        """
    ),
    ssd300: shapes(
        """
        conv4_3_norm 1×512×38×38
        fc7 1×1024×19×19
        conv6_2 1×512×10×10
        conv7_2 1×256×5×5
        conv8_2 1×256×3×3
        conv9_2 1×256×1×1
        mbox_loc 1×34928
        mbox_conf_flatten 1×183372
        mbox_priorbox 1×2×34928
        """
    ),
    ssd300_train: shapes(
        """
        mbox_conf 2×183372
        mbox_loss
        """
    ),
    mobilenet_ssd: shapes(
        """
        conv0 1×32×150×150
        conv11 1×512×19×19
        conv13 1×1024×10×10
        conv17_2 1×128×1×1
        mbox_loc 1×7668
        mbox_conf 1×40257
        mbox_priorbox 1×2×7668
        """
    ),
    faster_rcnn: shapes(
        """
        conv5_3 1×512×14×14
        rpn_cls_prob_reshape 1×18×14×14
        rpn_bbox_pred 1×36×14×14
        """
    ),
}
PARAMETERS = {
    caffenet: 60_965_224,
    vgg16: 138_357_544,
    googlenet: 6_998_552,
    googlenet_train: 13_378_280,
    resnet50: 25_557_032 + 64,  # this one net of its family has a bias in conv1
    fcn8s: 134_489_759,
    ssd300: 26_285_486,
    mobilenet_ssd: 5_783_417,  # the 23 MB of its published .caffemodel
    faster_rcnn: 137_078_239,
}
"""Trained numbers, BatchNorm's statistics aside."""


def phase_of(text: Callable[..., str]) -> str:
    return "TRAIN" if text.__name__.endswith("_train") else "TEST"


def statistics(net: Net) -> set[str]:
    return {spec.name for spec in net.spec.layers if spec.type == "BatchNorm"}


@pytest.fixture
def full_size(monkeypatch):
    """Builds a net of full width with weights that are all one 0 in memory."""
    zeros = np.zeros((), np.float32)
    monkeypatch.setattr(standard_layer, "adopted", lambda stored, index, shape: np.broadcast_to(zeros, shape))
    return lambda text: net_of(text(), phase_of(text), seed=RANDOM_SEED)


@pytest.mark.parametrize("text", SHAPES, ids=lambda text: text.__name__)
def test_a_well_known_net_has_its_published_shapes_and_as_many_parameters(text, full_size):
    net = full_size(text)
    assert {blob: net.blobs[blob].shape for blob in SHAPES[text]} == SHAPES[text]
    trained = [blob.count for layer, blobs in net.params.items() if layer not in statistics(net) for blob in blobs]
    if text in PARAMETERS:
        assert sum(trained) == PARAMETERS[text]


def resnet_statistics(net: Net) -> None:
    """Statistics that keep the activations near 1, scaled by a factor as those of trained nets are."""
    for layer in net.layers:
        spec = layer.spec
        if spec.type == "BatchNorm":
            mean, variance, factor = (blob.data for blob in layer.blobs)
            images = net.blobs[spec.bottoms[0]].data
            factor[...] = 999.98
            mean[...] = factor * images.mean((0, 2, 3)) / 2
            variance[...] = factor * (images**2).mean((0, 2, 3))
        net.forward(start=spec.name, end=spec.name)


def fcn_upsampling(net: Net) -> None:
    """As FCN's own surgery does: each class is upsampled alone."""
    for name in ("upscore2", "upscore_pool4", "upscore8"):
        net.params[name][0].data[...] *= np.eye(21)[:, :, None, None]


def image_size(net: Net) -> None:
    """``im_info``: the image as it is fed, blown up by 1.6."""
    net.blobs["im_info"].data[...] = (*net.blobs["data"].shape[2:], 1.6)


def objects(net: Net) -> None:
    """Ground truth of all sizes, so that every feature map learns: image, label, instance, box, difficult."""
    net.blobs["label"].data[0, 0] = (
        (0, 7, 0, 0.1, 0.2, 0.6, 0.9, 0),
        (0, 7, 1, 0.6, 0.6, 0.9, 0.9, 0),
        (1, 12, 0, 0.3, 0.3, 0.5, 0.4, 0),
        (1, 15, 1, 0.0, 0.1, 0.9, 0.8, 0),
    )


def images_and_labels(net: Net) -> None:
    random = np.random.default_rng(RANDOM_SEED)
    net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape)
    net.blobs["label"].data[...] = random.integers(0, 1000, net.blobs["label"].shape)


CHECKED = {
    "caffenet": (caffenet(divisor=8, batch=2), None),
    "vgg16": (vgg16(divisor=8, batch=1), None),
    "googlenet": (googlenet(batch=1), None),
    "googlenet_train": (googlenet_train(divisor=8, batch=2), images_and_labels),
    "resnet50": (resnet50(divisor=8), resnet_statistics),
    "fcn8s": (fcn8s(divisor=8, height=237, width=250), fcn_upsampling),
    "ssd300": (ssd300(divisor=8), None),
    "ssd300_train": (ssd300_train(divisor=8, objects=4), objects),
    "mobilenet_ssd": (mobilenet_ssd(), None),
    "faster_rcnn": (faster_rcnn(divisor=8, height=160, width=224), image_size),
}
"""The nets, thin where they are heavy, and what their inputs and stored blobs hold besides drawn numbers."""


def prepared(name: str) -> Net:
    text, prepare = CHECKED[name]
    net = drawn_net(text, "TRAIN" if name.endswith("_train") else "TEST", RANDOM_SEED)
    if prepare:
        prepare(net)
    return net


@pytest.mark.parametrize("name", CHECKED)
def test_an_exported_well_known_net_agrees_with_its_layers_in_every_blob(name):
    net = prepared(name)
    [result] = check(net, rtol=1e-4)
    assert result.first_wrong is None
    compared = {row.key for row in result.rows}
    assert compared >= {f"data/{output}" for output in net.outputs}
    if net.phase == "TRAIN":
        assert compared >= {f"pdiff/{layer}/{i}" for layer, blobs in net.params.items() for i in range(len(blobs))}
    assert all(np.isfinite(row.largest) and row.largest > 0 for row in result.rows)


@pytest.mark.parametrize(
    "name, blob, least",
    [("ssd300", "detection_out", 200), ("mobilenet_ssd", "detection_out", 10), ("faster_rcnn", "rois", 10)],
)
def test_the_detectors_that_are_checked_find_something(name, blob, least):
    assert prepared(name).forward(blobs=[blob])[blob].shape[-2] >= least
