"""Every example runs in caffe.Net, forward and backward, and its gradients are those of its loss."""

from collections import namedtuple

import numpy as np
import pytest
from real_caffe import caffe
from small_nets import assert_close, build, data_of, diff_of

from caffe_layers import functional

# scores, labels and loss are blobs; euclidean is the blob of a second loss that Caffe computes itself.
Example = namedtuple("Example", "scores labels loss function parameters euclidean")

EXAMPLES = {
    "multilabel_softmax": Example("ip2", "label", "loss", functional.softmax_loss, {"target": "multi_label"}, None),
    "lenet_digits": Example("ip2", "label", "loss", functional.softmax_loss, {}, None),
    "lenet_digits_focal": Example(
        "ip2",
        "label",
        "loss",
        functional.softmax_focal_loss,
        {"gamma": 2.0, "alpha": None, "background_label": None},
        None,
    ),
    "lenet_digits_sigmoid": Example("ip2", "label", "loss", functional.sigmoid_cross_entropy_loss, {}, None),
    "retinanet_head": Example(
        "anchor_score",
        "label",
        "class_loss",
        functional.sigmoid_focal_loss,
        {"axis": 2, "target": "index", "ignore_label": -1, "normalization": "POSITIVES", "alpha": 0.25, "gamma": 2.0},
        "box_loss",
    ),
}


def example_net(name, phase):
    return randomize(caffe.Net(f"prototxt_examples/{name}.prototxt", phase))


def randomize(net):
    """Give every parameter a value that lets gradients through: some fillers start at 0 or nearly so."""
    random = np.random.RandomState(2)
    for blobs in net.params.values():
        for i in range(len(blobs)):
            shape = blobs[i].data.shape
            if len(shape) > 1:
                blobs[i].data[...] = random.randn(*shape) * np.sqrt(2.0 / np.prod(shape[1:]))
            else:
                blobs[i].data[...] = 0.1 * random.randn(*shape)
    return net


def test_every_example_is_tested_here(project_root):
    names = {path.stem for path in (project_root / "prototxt_examples").glob("*.prototxt")}
    assert {name for name in names if not name.endswith("_solver")} == set(EXAMPLES) | {"deploy_activations"}


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_loss_and_its_gradient_are_those_of_the_functional_api(name, phase, project_root):
    example = EXAMPLES[name]
    net = example_net(name, phase)
    for _ in range(2):  # two batches
        net.forward()
        net.backward()
        scores, labels = data_of(net, example.scores), data_of(net, example.labels)
        loss, gradient = example.function(scores, labels, **example.parameters)
        assert loss > 0
        assert_close(data_of(net, example.loss), loss)
        assert_close(diff_of(net, example.scores), gradient)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_parameters_gradients_are_the_slopes_of_the_loss(name, project_root):
    example = EXAMPLES[name]
    net = example_net(name, caffe.TRAIN)
    net.forward()
    net.clear_param_diffs()
    net.backward()

    def loss():
        # Starting after the data layer keeps its batch.
        net.forward(start="data")
        losses = [example.loss] + ([example.euclidean] if example.euclidean else [])
        return sum(float(data_of(net, blob).sum()) for blob in losses)

    for layer, blobs in net.params.items():
        for i in range(len(blobs)):
            assert_slope(loss, blobs[i], np.array(blobs[i].diff, np.float64), f"{layer}/{i}")


def assert_slope(loss, parameter, gradient, name):
    """Along its gradient a function rises by the gradient's length.

    The step changes the loss by a ten-thousandth. That is a thousand times float32's rounding of the loss, and for most
    of the batch too little to cross a kink of a ReLU or a pooling. Those crossed are what the 2 % are for: 0.6 % is the
    most that they make here (conv1's bias in LeNet), and in float64 with smaller steps the difference vanishes.
    """
    length = np.sqrt((gradient**2).sum())
    assert length > 0, f"{name} has no gradient"
    start = np.array(parameter.data, np.float64)
    step = 1e-4 * loss() / length
    parameter.data[...] = start + step * gradient / length
    above = loss()
    parameter.data[...] = start - step * gradient / length
    below = loss()
    parameter.data[...] = start
    slope = (above - below) / (2 * step)
    assert abs(slope - length) < 0.02 * length, f"{name}: the loss rises by {slope:.6g}, its gradient says {length:.6g}"


def test_the_activations_of_the_deploy_net_and_their_gradients(project_root, tmp_path):
    # No loss: the gradients of the outputs are given, and only force_backward makes Caffe carry them down.
    text = "force_backward: true\n" + (project_root / "prototxt_examples/deploy_activations.prototxt").read_text()
    net = randomize(build(text, caffe.TEST, tmp_path))
    random = np.random.RandomState(3)
    net.blobs["data"].reshape(4, 1, 8, 8)
    net.reshape()
    net.forward(data=random.rand(4, 1, 8, 8))
    p, s = functional.softmax(data_of(net, "ip2")), functional.sigmoid(data_of(net, "ip2_each"))
    assert_close(data_of(net, "which_digit"), p)
    assert_close(data_of(net, "each_digit"), s)

    by_p, by_s = random.randn(2, 4, 10).astype(np.float32)
    net.clear_param_diffs()
    net.backward(which_digit=by_p, each_digit=by_s)
    assert_close(diff_of(net, "ip2"), p * (by_p - (by_p * p).sum(axis=1, keepdims=True)))
    assert_close(diff_of(net, "ip2_each"), s * (1 - s) * by_s)
    assert net.params["conv1"][0].diff.any()


def test_the_data_layer_feeds_the_file_in_order_and_starts_again_at_its_end(project_root):
    with np.load("prototxt_examples/data/digits_test.npz", allow_pickle=False) as file:
        images, labels = file["data"], file["label"]
    net = caffe.Net("prototxt_examples/lenet_digits.prototxt", caffe.TEST)
    for batch in (0, 1, 2, 0):
        net.forward()
        rows = slice(100 * batch, 100 * batch + 100)
        assert np.array_equal(net.blobs["pixels"].data, images[rows])
        assert np.array_equal(net.blobs["label"].data, labels[rows])
