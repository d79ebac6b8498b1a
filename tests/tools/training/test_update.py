"""An update of a net's learnable blobs: which there are, what is done to their gradients, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.training.update import Updater, learnable_blobs
from nets import layer
from solver_nets import NET, filled, inner_product, solver_of, train_net

TWO = (
    filled("data", (4, 3))
    + inner_product("a", "data", "x", more='param { name: "w" lr_mult: 2 } param { decay_mult: 0 }')
    + inner_product("b", "x", "y", more='param { name: "w" decay_mult: 3 }')
    + layer("loss", "EuclideanLoss", "y data", "loss")
)


def updated(text, gradients, net=NET):
    """The learnable blobs before and after one update by these gradients."""
    found = train_net(net)
    updater = Updater(solver_of(text, net), found)
    before = [item.blob.data.copy() for item in updater.blobs]
    for item, gradient in zip(updater.blobs, gradients, strict=True):
        item.blob.diff[...] = gradient
    updater.apply()
    return before, [item.blob.data for item in updater.blobs]


def test_the_learnable_blobs_come_in_the_order_of_the_layers_and_shared_ones_once():
    assert [item.name for item in learnable_blobs(train_net(TWO))] == ["a/0", "a/1", "b/1"]


def test_a_shared_blob_has_each_multiplier_from_the_first_layer_that_gives_it():
    (shared, bias, other) = learnable_blobs(train_net(TWO))
    assert (shared.lr_mult, shared.decay_mult) == (2, 3)
    assert (bias.lr_mult, bias.decay_mult) == (1, 0)
    assert (other.lr_mult, other.decay_mult) == (1, 1)


def test_batch_norms_statistics_are_listed_but_do_not_learn():
    net = filled("data", (4, 3)) + layer("bn", "BatchNorm", "data", "y") + inner_product("ip", "y", "z")
    net += layer("loss", "EuclideanLoss", "z data", "loss")
    multipliers = {item.name: item.lr_mult for item in learnable_blobs(train_net(net))}
    assert multipliers == {"bn/0": 0, "bn/1": 0, "bn/2": 0, "ip/0": 1, "ip/1": 1}
    before, after = updated("weight_decay: 0.1", [0, 0, 0, 1, 1], net)
    assert all(np.array_equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))


def test_the_rate_is_multiplied_by_lr_mult():
    before, after = updated("", [1, 1, 1], TWO)
    for old, new, mult in zip(before, after, (2, 1, 1), strict=True):
        np.testing.assert_allclose(old - new, np.full(old.shape, 0.1 * mult), atol=1e-6)


def test_l2_decay_adds_a_fraction_of_the_blob_to_its_gradient():
    before, after = updated("weight_decay: 0.5", [0, 0, 0], TWO)
    for old, new, factor in zip(before, after, (2 * 3, 0, 1), strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.1 * 0.5 * factor), atol=1e-6)


def test_l1_decay_adds_the_blobs_signs():
    before, after = updated('weight_decay: 0.5 regularization_type: "L1"', [0, 0])
    assert (before[1] == 0).all() and (after[1] == 0).all()  # the sign of 0 is 0
    np.testing.assert_allclose(after[0], before[0] - 0.05 * np.sign(before[0]), atol=1e-6)


def test_gradients_over_iter_size_batches_are_divided_by_their_number():
    before, after = updated("iter_size: 4", [2, 2])
    np.testing.assert_allclose(before[0] - after[0], np.full((3, 5), 0.1 * 2 / 4), atol=1e-6)


def test_gradients_are_clipped_by_the_norm_of_all_of_them_together():
    gradients = [np.full((3, 5), 3.0), np.full(3, 4.0)]
    norm = np.sqrt(15 * 9 + 3 * 16)
    before, after = updated("clip_gradients: 2", gradients)
    np.testing.assert_allclose(before[0] - after[0], np.full((3, 5), 0.1 * 3 * 2 / norm), atol=1e-6)
    np.testing.assert_allclose(before[1] - after[1], np.full(3, 0.1 * 4 * 2 / norm), atol=1e-6)


def test_gradients_below_the_limit_are_not_scaled():
    before, after = updated("clip_gradients: 1000", [1, 1])
    np.testing.assert_allclose(before[0] - after[0], np.full((3, 5), 0.1), atol=1e-6)


def test_clipping_comes_before_the_division_by_iter_size_and_both_before_the_decay():
    gradients = [np.full((3, 5), 3.0), np.zeros(3)]
    before, after = updated("clip_gradients: 1 iter_size: 2 weight_decay: 0.25", gradients)
    gradient = 3 / np.sqrt(15 * 9) / 2 + 0.25 * before[0]
    np.testing.assert_allclose(after[0], before[0] - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize(("type_", "count"), [("SGD", 1), ("Nesterov", 1), ("AdaDelta", 2), ("Adam", 2)])
def test_the_history_has_one_array_for_each_blob_and_then_the_second_ones(type_, count):
    updater = Updater(solver_of(f'type: "{type_}"'), train_net())
    assert [array.shape for array in updater.history] == [(3, 5), (3,)] * count


def test_adams_two_moments_are_those_halves():
    net = train_net()
    updater = Updater(solver_of('type: "Adam" momentum: 0.5 momentum2: 0.75'), net)
    for item in updater.blobs:
        item.blob.diff[...] = 2
    updater.apply()
    assert [array.flat[0] for array in updater.history] == [1, 1, 1, 1]
    assert [array.shape for array in updater.history] == [(3, 5), (3,), (3, 5), (3,)]
    updater.blobs[0].blob.diff[...] = 0
    updater.apply()
    assert [array.flat[0] for array in updater.history[::2]] == [0.5, 0.75]


def test_adams_first_update_is_the_rate_whatever_the_gradients_size():
    """Both of its moments are corrected for having started at 0: t is 1."""
    before, after = updated('type: "Adam" momentum: 0.9', [np.full((3, 5), 70.0), np.full(3, -0.02)])
    np.testing.assert_allclose(before[0] - after[0], np.full((3, 5), 0.1), atol=1e-5)
    np.testing.assert_allclose(before[1] - after[1], np.full(3, -0.1), atol=1e-5)
