"""What a net keeps between its passes: random numbers, and BatchNorm's statistics."""

from __future__ import annotations

import numpy as np

from nets import fill_inputs, inputs, layer, net_of

TEXT = inputs(x=(2, 3)) + layer(
    "ip", "InnerProduct", "x", "s", "inner_product_param { num_output: 4 weight_filler { type: 'xavier' } }"
)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    first, second, third = (net_of(TEXT, seed=seed).params["ip"][0].data for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


DROPOUT = "force_backward: true " + inputs(x=(100, 100)) + layer("drop", "Dropout", "x", "y", "loss_weight: 1")


def test_dropout_drops_the_same_elements_forward_and_backward():
    net = net_of(DROPOUT)
    y = net.forward(x=np.ones((100, 100)))["y"]
    assert sorted(np.unique(y)) == [0, 2] and abs((y == 0).mean() - 0.5) < 0.02
    np.testing.assert_array_equal(net.backward()["x"], y)


def test_dropout_drops_others_in_the_next_pass_and_the_same_with_the_same_seed():
    nets = [net_of(DROPOUT, seed=3) for _ in range(2)]
    passes = [[net.forward(x=np.ones((100, 100)))["y"].copy() for _ in range(2)] for net in nets]
    np.testing.assert_array_equal(passes[0], passes[1])
    assert not np.array_equal(*passes[0])


def test_dropout_keeps_everything_in_test_phase():
    assert (net_of(DROPOUT, "TEST").forward(x=np.ones((100, 100)))["y"] == 1).all()


def test_dropout_drops_as_much_as_its_ratio_and_keeps_the_mean():
    net = net_of(DROPOUT.replace("loss", "dropout_param { dropout_ratio: 0.2 } loss", 1))
    y = net.forward(x=np.ones((100, 100)))["y"]
    assert abs((y == 0).mean() - 0.2) < 0.02 and y.max() == 1.25


def test_constant_dummy_data_is_filled_once_and_random_data_in_each_pass():
    fillers = "shape { dim: 3 } data_filler { value: 2 } data_filler { type: 'uniform' }"
    net = net_of(layer("data", "DummyData", "", "c r", f"dummy_data_param {{ {fillers} }}"))
    assert (net.blobs["c"].data == 2).all() and not net.blobs["r"].data.any()
    first = net.forward()["r"].copy()
    net.blobs["c"].data[...] = 5
    assert not np.array_equal(net.forward()["r"], first) and (net.blobs["c"].data == 5).all()


# --- BatchNorm's statistics

BATCH_NORM = inputs(x=(4, 2, 3)) + layer("bn", "BatchNorm", "x", "y")


def test_batch_norm_adds_up_the_batchs_statistics_in_train_phase():
    net = net_of(BATCH_NORM)
    fill_inputs(net)
    net.forward()
    net.forward()
    x = net.blobs["x"].data
    mean, variance, weight = (blob.data for blob in net.params["bn"])
    np.testing.assert_allclose(weight, 1.999)
    np.testing.assert_allclose(mean, 1.999 * x.mean((0, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 1.999 * x.var((0, 2), ddof=1), rtol=1e-5)


def test_batch_norm_uses_the_stored_statistics_in_test_phase():
    net = net_of(BATCH_NORM, "TEST")
    fill_inputs(net)
    for blob, value in zip(net.params["bn"], ([2, 4], [8, 18], [2]), strict=True):
        blob.data[...] = value
    wanted = (net.blobs["x"].data - [[[1], [2]]]) / np.sqrt(np.array([[[4], [9]]]) + 1e-5)
    np.testing.assert_allclose(net.forward()["y"], wanted, rtol=1e-5, atol=1e-6)
    assert net.params["bn"][2].data == 2


def test_batch_norm_that_never_saw_data_takes_mean_and_variance_for_0():
    net = net_of(BATCH_NORM, "TEST")
    fill_inputs(net)
    np.testing.assert_allclose(net.forward()["y"], net.blobs["x"].data / np.sqrt(1e-5), rtol=1e-5)
