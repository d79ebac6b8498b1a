"""Which layers run backward, and toward what."""

from __future__ import annotations

from nets import inputs, layer, net_of

DATA = inputs(x=(2, 3), label=(2,))
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def ip(name, bottom, top, rest=""):
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: 3 }} {rest}")


def loss(bottom, rest="", name="loss"):
    return layer(name, "SoftmaxWithLoss", f"{bottom} label", name, rest)


def need(text):
    """Layer name → (runs backward, toward which bottoms, which learnable blobs get diffs)."""
    layers = net_of(text).placed
    return {placed.name: (placed.runs_backward, placed.propagate_down, placed.learn) for placed in layers}


def running(text):
    return [name for name, (runs, _, _) in need(text).items() if runs]


def test_a_layer_that_learns_under_a_loss_runs_backward_but_not_toward_the_data():
    found = need(DATA + ip("ip", "x", "s") + loss("s"))
    assert found["ip"] == (True, [False], [True, True])
    assert found["loss"] == (True, [True, False], [])
    assert found["x"] == (False, [], [])


def test_where_nothing_learns_nothing_runs_backward():
    assert running(DATA + loss("x")) == []


def test_lr_mult_0_stops_learning():
    assert running(DATA + ip("ip", "x", "s", FROZEN) + loss("s")) == []


def test_lr_mult_0_may_stop_one_blob_alone():
    found = need(DATA + ip("ip", "x", "s", "param { lr_mult: 0 } param { lr_mult: 1 }") + loss("s"))
    assert found["ip"] == (True, [False], [False, True])


def test_a_negative_lr_mult_learns():
    assert need(DATA + ip("ip", "x", "s", "param { lr_mult: -1 }") + loss("s"))["ip"][2] == [True, True]


def test_a_frozen_layer_above_one_that_learns_passes_the_gradient_on():
    found = need(DATA + ip("a", "x", "h") + ip("b", "h", "s", FROZEN) + loss("s"))
    assert found["b"] == (True, [True], [False, False])


def test_a_frozen_layer_below_one_that_learns_does_not_run_backward():
    found = need(DATA + ip("a", "x", "h", FROZEN) + ip("b", "h", "s") + loss("s"))
    assert found["a"][0] is False and found["b"] == (True, [False], [True, True])


def test_propagate_down_false_stops_the_gradient_and_all_that_lies_below():
    found = need(DATA + ip("a", "x", "h") + ip("b", "h", "s", "propagate_down: false") + loss("s"))
    assert found["a"][0] is False and found["b"] == (True, [False], [True, True])


def test_propagate_down_true_forces_a_gradient_toward_the_data():
    assert need(DATA + ip("ip", "x", "s", "propagate_down: true") + loss("s"))["ip"][1] == [True]


def test_layers_that_reach_no_loss_do_not_run_backward():
    assert running(DATA + ip("a", "x", "h") + ip("b", "h", "out") + ip("c", "h", "s") + loss("s")) == [
        "a",
        "h_a_0_split",
        "c",
        "loss",
    ]


def test_a_net_without_a_loss_does_not_run_backward():
    assert running(DATA + ip("ip", "x", "s")) == []


def test_a_loss_of_weight_0_counts_for_none():
    assert running(DATA + ip("ip", "x", "s") + loss("s", "loss_weight: 0")) == []


def test_a_loss_weight_makes_a_loss_of_any_layer():
    assert running(DATA + ip("ip", "x", "s", "loss_weight: 2")) == ["ip"]


def test_silence_asks_for_no_gradient():
    assert running(DATA + ip("ip", "x", "s") + layer("quiet", "Silence", "s")) == []


def test_force_backward_asks_every_layer_toward_all_but_labels():
    found = need("force_backward: true " + DATA + ip("ip", "x", "s", FROZEN) + loss("s"))
    assert found["ip"] == (True, [True], [True, True])
    assert found["loss"] == (True, [True, False], [])


def test_force_backward_needs_no_loss():
    assert "ip" in running("force_backward: true " + DATA + ip("ip", "x", "s"))


def test_force_backward_beats_propagate_down_false():
    text = "force_backward: true " + DATA + ip("ip", "x", "s", "propagate_down: false") + loss("s")
    assert need(text)["ip"][1] == [True]


def test_force_backward_asks_both_bottoms_of_a_euclidean_loss():
    text = "force_backward: true " + inputs(x=(2, 3), t=(2, 3)) + layer("loss", "EuclideanLoss", "x t", "loss")
    assert need(text)["loss"][1] == [True, True]


def test_batch_norms_statistics_get_no_diffs_though_caffe_lets_them_ask_for_a_gradient():
    found = need(DATA + layer("bn", "BatchNorm", "x", "s") + loss("s"))
    assert found["bn"] == (True, [False], [False, False, False]) and found["loss"] == (True, [True, False], [])
