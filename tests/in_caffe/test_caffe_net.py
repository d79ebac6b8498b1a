"""How the layers behave in a net of Caffe's: loss weights, propagate_down, in-place layers, other shapes, errors."""

import numpy as np
import pytest
from real_caffe import caffe
from small_nets import (
    assert_close,
    build,
    data_of,
    diff_of,
    inner_product,
    input_layer,
    learned_scale,
    loss_net,
    python_layer,
)

from caffe_layers import functional

RANDOM = np.random.RandomState(1)
SCORES = 3 * RANDOM.randn(6, 5)
INDEX = RANDOM.randint(0, 5, size=6)
MULTI_HOT = (RANDOM.rand(6, 5) < 0.4).astype(float)


def test_loss_weight_scales_the_gradient_and_not_the_loss(tmp_path):
    net = build(loss_net("SoftmaxLossLayer", (6, 5), (6,), more="loss_weight: 0.25"), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    net.backward()
    loss, gradient = functional.softmax_loss(data_of(net, "scores"), data_of(net, "label"))
    assert_close(data_of(net, "loss"), loss)
    assert_close(diff_of(net, "scores"), 0.25 * gradient)


def test_a_top_diff_set_by_hand_scales_the_gradient_of_a_second_backward(tmp_path):
    net = build(loss_net("SoftmaxLossLayer", (6, 5), (6,)), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    net.backward()
    once = diff_of(net, "scores")
    net.blobs["loss"].diff[...] = -3
    net.backward()
    assert_close(diff_of(net, "scores"), -3 * once)


def test_two_losses_on_one_blob_add_their_weighted_gradients(tmp_path):
    text = input_layer("data", (6, 5)) + input_layer("label", (6,)) + input_layer("labels", (6, 5))
    text += learned_scale("data", "scores")
    text += python_layer("SoftmaxLossLayer", ["scores", "label"], ["softmax_loss"], more="loss_weight: 2")
    text += python_layer("SigmoidFocalLossLayer", ["scores", "labels"], ["focal_loss"], more="loss_weight: 0.5")
    net = build(text, caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX, labels=MULTI_HOT)
    net.backward()
    _, softmax_gradient = functional.softmax_loss(data_of(net, "scores"), data_of(net, "label"))
    _, focal_gradient = functional.sigmoid_focal_loss(data_of(net, "scores"), data_of(net, "labels"))
    # Caffe gives each loss a copy of the blob, made by a Split layer of its own.
    assert_close(diff_of(net, "scores_scores_0_split_0"), 2 * softmax_gradient)
    assert_close(diff_of(net, "scores_scores_0_split_1"), 0.5 * focal_gradient)
    assert_close(diff_of(net, "scores"), 2 * softmax_gradient + 0.5 * focal_gradient)


def test_propagate_down_false_leaves_the_bottom_diff_alone(tmp_path):
    more = "loss_weight: 1 propagate_down: false propagate_down: false"
    net = build(loss_net("SoftmaxLossLayer", (6, 5), (6,), more=more), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    net.blobs["scores"].diff[...] = 7
    net.clear_param_diffs()
    net.backward()
    assert (net.blobs["scores"].diff == 7).all()
    assert net.params["scores"][0].diff == 0


@pytest.mark.parametrize("layer", ["SoftmaxLossLayer", "SigmoidFocalLossLayer"])
def test_asking_for_the_labels_gradient_is_an_error_that_says_so(layer, tmp_path):
    more = "loss_weight: 1 propagate_down: true propagate_down: true"
    parameters = {"target": "multi_label"}
    net = build(loss_net(layer, (6, 5), (6, 5), parameters, more), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=MULTI_HOT)
    with pytest.raises(ValueError, match="label"):
        net.backward()


def test_force_backward_asks_for_the_labels_gradient_too(tmp_path):
    # Caffe asks each layer whether a bottom may be forced; its own losses refuse for labels, a Python layer cannot.
    net = build("force_backward: true\n" + loss_net("SoftmaxLossLayer", (6, 5), (6,)), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    with pytest.raises(ValueError, match="label"):
        net.backward()


def test_propagate_down_true_on_the_first_layer_gives_the_datas_gradient(tmp_path):
    # What to write in the place of force_backward.
    text = input_layer("data", (6, 3)) + input_layer("label", (6,)) + inner_product("data", "scores", 5)
    text += python_layer("SoftmaxLossLayer", ["scores", "label"], ["loss"], more="loss_weight: 1")
    net = build(text, caffe.TRAIN, tmp_path)
    net.forward(data=RANDOM.randn(6, 3), label=INDEX)
    net.backward()
    _, gradient = functional.softmax_loss(data_of(net, "scores"), data_of(net, "label"))
    assert_close(diff_of(net, "data"), gradient @ np.array(net.params["scores"][0].data, np.float64))


def test_a_relu_in_place_beneath_a_loss(tmp_path):
    text = input_layer("data", (6, 5)) + input_layer("label", (6,)) + learned_scale("data", "scores")
    text += 'layer { name: "relu" type: "ReLU" bottom: "scores" top: "scores" }\n'
    text += python_layer("SoftmaxLossLayer", ["scores", "label"], ["loss"], more="loss_weight: 1")
    net = build(text, caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    net.backward()
    rectified = np.maximum(SCORES.astype(np.float32), 0)
    assert np.array_equal(net.blobs["scores"].data, rectified)
    loss, gradient = functional.softmax_loss(rectified.astype(np.float64), data_of(net, "label"))
    assert_close(data_of(net, "loss"), loss)
    assert_close(diff_of(net, "scores"), gradient * (rectified > 0))


@pytest.mark.parametrize("layer", ["SoftmaxLayer", "SigmoidLayer"])
def test_an_activation_in_place_gives_what_it_gives_elsewhere(layer, tmp_path):
    def net_with(top):
        text = input_layer("data", (6, 3)) + input_layer("target", (6, 5)) + inner_product("data", "scores", 5)
        text += python_layer(layer, ["scores"], [top], name="activation")
        text += f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{top}" bottom: "target" top: "loss" }}\n'
        net = build(text, caffe.TRAIN, tmp_path)
        net.params["scores"][0].data[...] = weights
        net.forward(data=data, target=MULTI_HOT)
        net.clear_param_diffs()
        net.backward()
        return net

    weights, data = RANDOM.randn(5, 3), RANDOM.randn(6, 3)
    elsewhere, in_place = net_with("probability"), net_with("scores")
    assert_close(data_of(in_place, "scores"), data_of(elsewhere, "probability"))
    assert_close(diff_of(in_place, "scores"), diff_of(elsewhere, "scores"))
    assert_close(diff_of(in_place, "data"), diff_of(elsewhere, "data"))
    assert_close(in_place.params["scores"][0].diff, elsewhere.params["scores"][0].diff)


def test_a_softmax_along_another_axis_runs_backward(tmp_path):
    text = input_layer("data", (2, 3, 4)) + learned_scale("data", "scores")
    text += python_layer("SoftmaxLayer", ["scores"], ["probability"], {"axis": -1})
    net = build("force_backward: true\n" + text, caffe.TRAIN, tmp_path)
    net.forward(data=RANDOM.randn(2, 3, 4))
    wanted = RANDOM.randn(2, 3, 4).astype(np.float32)
    net.backward(probability=wanted)
    p = functional.softmax(data_of(net, "scores"), axis=-1)
    assert_close(data_of(net, "probability"), p)
    assert_close(diff_of(net, "scores"), p * (wanted - (wanted * p).sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("batch", [2, 9])
def test_a_net_takes_another_batch_size(batch, tmp_path):
    net = build(loss_net("SoftmaxLossLayer", (6, 5), (6,), more="loss_weight: 2"), caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=INDEX)
    net.backward()
    net.blobs["data"].reshape(batch, 5)
    net.blobs["label"].reshape(batch)
    net.reshape()
    net.forward(data=RANDOM.randn(batch, 5), label=RANDOM.randint(0, 5, size=batch))
    net.backward()
    loss, gradient = functional.softmax_loss(data_of(net, "scores"), data_of(net, "label"))
    assert_close(data_of(net, "loss"), loss)
    assert_close(diff_of(net, "scores"), 2 * gradient)


def test_an_unknown_parameter_is_an_error_of_the_net_that_lists_the_valid_ones(tmp_path):
    text = loss_net("SigmoidFocalLossLayer", (6, 5), (6, 5), {"gama": 1.0})
    with pytest.raises(ValueError, match="gama") as raised:
        build(text, caffe.TRAIN, tmp_path)
    assert "SigmoidFocalLossLayer" in str(raised.value)
    assert "gamma" in str(raised.value) and "alpha" in str(raised.value)


def test_labels_that_do_not_fit_are_an_error_of_the_net(tmp_path):
    with pytest.raises(ValueError, match="SoftmaxLossLayer"):
        build(loss_net("SoftmaxLossLayer", (6, 5), (4,)), caffe.TRAIN, tmp_path)


def test_a_label_out_of_range_is_an_error_of_forward_and_the_net_lives_on(tmp_path):
    net = build(loss_net("SoftmaxLossLayer", (6, 5), (6,)), caffe.TRAIN, tmp_path)
    wrong = INDEX.copy()
    wrong[3] = 5
    with pytest.raises(ValueError, match="label"):
        net.forward(data=SCORES, label=wrong)
    net.forward(data=SCORES, label=INDEX)
    assert_close(data_of(net, "loss"), functional.softmax_loss(data_of(net, "scores"), INDEX)[0])
