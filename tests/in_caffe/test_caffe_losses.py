"""Every loss layer in caffe.Net gives the loss and the gradient of the functional API in float64."""

import numpy as np
import pytest
from real_caffe import caffe
from small_nets import assert_close, build, data_of, diff_of, input_layer, learned_scale, loss_net, python_layer

import caffe_layers
from caffe_layers import functional
from caffe_layers.loss import LossLayer

RANDOM = np.random.RandomState(0)
SCORES = 3 * RANDOM.randn(6, 5)
MAPS = 3 * RANDOM.randn(2, 4, 3, 2)
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
INDEX = RANDOM.randint(0, 5, size=6)
MAP_INDEX = RANDOM.randint(0, 4, size=(2, 3, 2))
MULTI_HOT = (RANDOM.rand(6, 5) < 0.4).astype(float)
DISTRIBUTION = RANDOM.dirichlet(np.ones(5), size=6)

SOME_IGNORED = MAP_INDEX.copy()
SOME_IGNORED[0, 1] = 255
WITH_AN_EMPTY_ROW = MULTI_HOT.copy()
WITH_AN_EMPTY_ROW[2] = 0
SOME_ELEMENTS_IGNORED = MULTI_HOT.copy()
SOME_ELEMENTS_IGNORED[1, 3] = SOME_ELEMENTS_IGNORED[4] = -1
DETECTION = RANDOM.randint(-1, 5, size=(2, 3, 2))

CASES = {
    "softmax": ("SoftmaxLossLayer", SCORES, INDEX, {}),
    "softmax of maps, some ignored": ("SoftmaxLossLayer", MAPS, SOME_IGNORED, {"ignore_label": 255}),
    "softmax along the last axis": ("SoftmaxLossLayer", SCORES, INDEX, {"axis": -1, "normalization": "FULL"}),
    "softmax, weighted classes": (
        "SoftmaxLossLayer",
        SCORES,
        INDEX,
        {"class_weight": [0.5, 1, 2, 0, 3], "label_smoothing": 0.1, "normalization": "WEIGHT"},
    ),
    "softmax of distributions": ("SoftmaxLossLayer", SCORES, DISTRIBUTION, {"target": "distribution"}),
    "softmax, multi-label": ("SoftmaxLossLayer", SCORES, WITH_AN_EMPTY_ROW, {"target": "multi_label"}),
    "cross-entropy": ("CrossEntropyLossLayer", PROBABILITIES, INDEX, {}),
    "cross-entropy of soft labels": ("CrossEntropyLossLayer", PROBABILITIES, DISTRIBUTION, {"target": "distribution"}),
    "sigmoid": ("SigmoidCrossEntropyLossLayer", SCORES, MULTI_HOT, {}),
    "sigmoid, some ignored": (
        "SigmoidCrossEntropyLossLayer",
        SCORES,
        SOME_ELEMENTS_IGNORED,
        {"ignore_label": -1, "normalization": "VALID"},
    ),
    "sigmoid, weighted positives": ("SigmoidCrossEntropyLossLayer", SCORES, MULTI_HOT, {"pos_weight": [1, 2, 3, 4, 5]}),
    "sigmoid focal": ("SigmoidFocalLossLayer", SCORES, MULTI_HOT, {}),
    "sigmoid focal of anchors": (
        "SigmoidFocalLossLayer",
        MAPS,
        DETECTION,
        {"target": "index", "ignore_label": -1, "normalization": "POSITIVES", "gamma": 1.5},
    ),
    "softmax focal": ("SoftmaxFocalLossLayer", SCORES, INDEX, {"gamma": 0.5}),
    "softmax focal, weighted classes": ("SoftmaxFocalLossLayer", SCORES, INDEX, {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5]}),
}


for layer_class in caffe_layers.LAYERS:
    if issubclass(layer_class, LossLayer):
        defaults = {parameter.name: parameter.default for parameter in layer_class.parameters}
        labels_ = INDEX if defaults.get("target", "index") == "index" else MULTI_HOT
        scores_ = PROBABILITIES if layer_class.scores_are_probabilities else SCORES
        CASES[f"{layer_class.__name__} as it is"] = (layer_class.__name__, scores_, labels_, {})


@pytest.mark.parametrize("layer", caffe_layers.LAYERS)
def test_a_layer_is_a_caffe_layer(layer):
    assert issubclass(layer, caffe.Layer)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("case", sorted(CASES))
def test_a_loss_and_its_gradient_are_those_of_the_functional_api(case, phase, tmp_path):
    layer, scores, labels, parameters = CASES[case]
    net = build(loss_net(layer, scores.shape, labels.shape, parameters), phase, tmp_path)
    net.forward(data=scores, label=labels)
    net.clear_param_diffs()
    net.backward()

    # Caffe stores float32, so the reference starts from what it stored.
    scores, labels = data_of(net, "scores"), data_of(net, "label")
    loss, gradient = functional.FUNCTIONS[getattr(caffe_layers, layer)](scores, labels, **parameters)
    assert loss > 0
    assert_close(data_of(net, "loss"), loss)
    assert_close(diff_of(net, "scores"), gradient)
    # The gradient went on to the layer below: its one parameter multiplies every score.
    assert_close(net.params["scores"][0].diff, (gradient * scores).sum(), relative=1e-4)


@pytest.mark.parametrize("case", ["cross-entropy", "sigmoid", "sigmoid focal", "softmax", "softmax focal"])
def test_labels_get_no_gradient_and_no_bottom_is_written(case, tmp_path):
    layer, scores, labels, parameters = CASES[case]
    net = build(loss_net(layer, scores.shape, labels.shape, parameters), caffe.TRAIN, tmp_path)
    net.forward(data=scores, label=labels)
    net.backward()
    assert np.array_equal(net.blobs["scores"].data, scores.astype(np.float32))
    assert np.array_equal(net.blobs["label"].data, labels.astype(np.float32))
    assert not net.blobs["label"].diff.any()


def test_a_third_bottom_weighs_the_positions(tmp_path):
    text = input_layer("data", MAPS.shape) + learned_scale("data", "scores")
    text += input_layer("label", MAP_INDEX.shape) + input_layer("weight", MAP_INDEX.shape)
    text += python_layer("SoftmaxLossLayer", ["scores", "label", "weight"], ["loss"], more="loss_weight: 1")
    net = build(text, caffe.TRAIN, tmp_path)
    net.forward(data=MAPS, label=MAP_INDEX, weight=RANDOM.rand(*MAP_INDEX.shape))
    net.backward()

    loss, gradient = functional.softmax_loss(data_of(net, "scores"), data_of(net, "label"), data_of(net, "weight"))
    assert_close(data_of(net, "loss"), loss)
    assert_close(diff_of(net, "scores"), gradient)


@pytest.mark.parametrize(
    "layer, labels, activation",
    [
        ("SoftmaxLossLayer", INDEX, functional.softmax),
        ("SoftmaxFocalLossLayer", INDEX, functional.softmax),
        ("SigmoidCrossEntropyLossLayer", MULTI_HOT, functional.sigmoid),
        ("SigmoidFocalLossLayer", MULTI_HOT, functional.sigmoid),
    ],
)
def test_a_second_top_has_the_probabilities(layer, labels, activation, tmp_path):
    text = input_layer("data", SCORES.shape) + input_layer("label", labels.shape) + learned_scale("data", "scores")
    weights = "loss_weight: 1 loss_weight: 0"
    text += python_layer(layer, ["scores", "label"], ["loss", "probability"], more=weights)
    net = build(text, caffe.TRAIN, tmp_path)
    net.forward(data=SCORES, label=labels)
    assert_close(data_of(net, "probability"), activation(data_of(net, "scores")))
