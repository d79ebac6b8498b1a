"""The options that docs/layers.md names for the focal losses of other projects give those projects' losses."""

import numpy as np
import pytest

from caffe_layers import functional

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(6, 4)) * 2
P = 1 / (1 + np.exp(-SCORES))
HARD = (RANDOM.random((6, 4)) < 0.4).astype(float)
SOFT = RANDOM.random((6, 4))
LABELS = np.array([0, 1, 4, 2, -1, 0])
ALPHA, GAMMA = 0.25, 2.0


def torchvision(scores, t):
    """torchvision.ops.sigmoid_focal_loss, reduction "none"."""
    p = 1 / (1 + np.exp(-scores))
    cross_entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    p_t = p * t + (1 - p) * (1 - t)
    return (ALPHA * t + (1 - ALPHA) * (1 - t)) * (1 - p_t) ** GAMMA * cross_entropy


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_torchvision_sums_and_means(targets):
    losses = torchvision(SCORES, targets)
    assert functional.sigmoid_focal_loss(SCORES, targets, normalization="NONE")[0] == pytest.approx(losses.sum())
    assert functional.sigmoid_focal_loss(SCORES, targets, normalization="FULL")[0] == pytest.approx(losses.mean())


@pytest.mark.parametrize("background", [0, 4])
def test_mmdet_takes_labels_and_divides_by_the_positives(background):
    labels = np.array([0, 1, 4, 2, 3, 0])
    channels = np.arange(4) + (background == 0)
    targets = (labels[:, None] == channels).astype(float)
    loss, _ = functional.sigmoid_focal_loss(
        SCORES, labels, target="index", background_label=background, normalization="POSITIVES"
    )
    assert loss == pytest.approx(torchvision(SCORES, targets).sum() / np.count_nonzero(labels != background))


def test_detectron_ignores_minus_1_and_has_no_channel_for_the_background():
    losses = torchvision(SCORES, (LABELS[:, None] == np.arange(1, 5)).astype(float))[LABELS >= 0]
    loss, _ = functional.sigmoid_focal_loss(SCORES, LABELS, target="index", ignore_label=-1, normalization="POSITIVES")
    assert loss == pytest.approx(losses.sum() / np.count_nonzero(LABELS > 0))


def softmax_nll(labels):
    log_p = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels]


def test_detectron_weighs_the_background_of_a_softmax_by_1_minus_alpha():
    labels = np.array([0, 1, 3, 2, -1, 0])
    nll = softmax_nll(np.maximum(labels, 0))
    losses = np.where(labels >= 1, ALPHA, 1 - ALPHA) * (1 - np.exp(-nll)) ** GAMMA * nll * (labels >= 0)
    loss, _ = functional.softmax_focal_loss(SCORES, labels, ignore_label=-1, normalization="POSITIVES")
    assert loss == pytest.approx(losses.sum() / 3)


def test_the_first_port_to_caffe_has_alpha_on_both_signs():
    p_t = np.where(HARD == 1, P, 1 - P)
    losses = -ALPHA * (1 - p_t) ** GAMMA * np.log(p_t)
    assert functional.sigmoid_focal_loss(SCORES, HARD, alpha=[ALPHA] * 4)[0] == pytest.approx(losses.sum() / 6)


def test_the_later_port_to_caffe_is_the_layer_as_it_is():
    assert functional.sigmoid_focal_loss(SCORES, HARD)[0] == pytest.approx(torchvision(SCORES, HARD).sum() / 6)


def test_the_softmax_port_to_caffe_weighs_the_background_by_alpha_too():
    labels = np.array([0, 1, 3, 2, 3, 0])
    nll = softmax_nll(labels)
    losses = ALPHA * (1 - np.exp(-nll)) ** GAMMA * nll
    assert functional.softmax_focal_loss(SCORES, labels, background_label=None)[0] == pytest.approx(losses.mean())


def test_cornernet_on_targets_of_0_and_1():
    losses = -np.where(HARD == 1, (1 - P) ** 2 * np.log(P), P**2 * np.log(1 - P))
    loss, _ = functional.sigmoid_focal_loss(SCORES, HARD, alpha=None, normalization="POSITIVES")
    assert loss == pytest.approx(losses.sum() / HARD.sum())
