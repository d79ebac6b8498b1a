"""What check draws: inputs that are valid where they are read, weights with which all numbers say something."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.check.check import check
from caffe_tools.check.evidence import proves_nothing
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.draw_weights import draw_weights
from caffe_tools.net.inputs import feed
from caffe_tools.net.keys import DATA
from nets import drawn_net, inner_product, inputs, layer, net_of

# Inputs that are valid -----------------------------------------------------------------------------------------------

ROI = layer("p", "ROIPooling", "map rois", "p", "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.25 }")
PSROI = layer(
    "p", "PSROIPooling", "map rois", "p", "psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 2 }"
)


def assert_are_regions(rows, images=3, width=40, height=32):
    rows = rows.reshape(-1, 5)
    assert set(rows[:, 0]) == set(range(images))
    assert (rows[:, 1:] >= 0).all() and (rows[:, [1, 3]] <= width - 1).all() and (rows[:, [2, 4]] <= height - 1).all()
    assert (rows[:, 1] < rows[:, 3]).all() and (rows[:, 2] < rows[:, 4]).all()


@pytest.mark.parametrize("shape", [(30, 5), (30, 5, 1, 1)])
@pytest.mark.parametrize("text", [ROI, PSROI])
def test_regions_lie_within_the_images(text, shape):
    net = drawn_net(inputs(map=(3, 8, 8, 10), rois=shape) + text, "TEST")
    assert_are_regions(net.blobs["rois"].data)
    assert all(result.agrees for result in check(net))


REACHED = {
    "split": inputs(rois=(30, 5)) + layer("other", "Power", "rois", "other"),
    "reshape": inputs(all=(10, 3, 5))
    + layer("r", "Reshape", "all", "rois", "reshape_param { shape { dim: -1 dim: 5 } }"),
    "flatten": inputs(all=(30, 5, 1)) + layer("r", "Flatten", "all", "rois"),
    "permute": inputs(all=(5, 30)) + layer("r", "Permute", "all", "rois", "permute_param { order: 1 order: 0 }"),
    "slice": inputs(all=(30, 9))
    + layer("r", "Slice", "all", "score rois", "slice_param { slice_point: 4 }")
    + layer("sigmoid", "Sigmoid", "score", "y"),
    "concat rows": inputs(a=(10, 5), b=(20, 5)) + layer("r", "Concat", "a b", "rois", "concat_param { axis: 0 }"),
    "concat columns": inputs(a=(30, 1), b=(30, 4)) + layer("r", "Concat", "a b", "rois"),
    "two layers": inputs(all=(30, 10))
    + layer("s", "Slice", "all", "one two")
    + layer("d", "Power", "one", "y")
    + layer("r", "Reshape", "two", "rois", "reshape_param { shape { dim: 30 dim: 5 } }"),
}


@pytest.mark.parametrize("way", REACHED)
def test_they_do_so_where_they_come_through_layers_that_move_elements(way):
    net = drawn_net(inputs(map=(3, 8, 8, 10)) + REACHED[way] + ROI, "TEST")
    net.forward()
    assert_are_regions(net.blobs["rois"].data)


def test_labels_of_several_tasks_in_one_blob_are_each_valid():
    text = inputs(x=(60, 4), labels=(60, 2)) + layer("s", "Slice", "labels", "l1 l2")
    for task, classes in (("1", 3), ("2", 7)):
        text += inner_product(f"ip{task}", "x", f"score{task}", outputs=classes)
        text += layer(f"loss{task}", "SoftmaxWithLoss", f"score{task} l{task}", f"loss{task}")
    net = drawn_net(text)
    net.forward()
    labels = net.blobs["labels"].data
    assert set(labels[:, 0]) == set(range(3)) and set(labels[:, 1]) == set(range(7))


def test_the_size_of_an_image_is_that_which_the_map_was_made_of():
    param = "proposal_param { feat_stride: 16 post_nms_topn: 20 }"
    text = inputs(scores=(1, 18, 6, 8), deltas=(1, 36, 6, 8), im_info=(1, 3))
    net = drawn_net(text + layer("p", "Proposal", "scores deltas im_info", "rois", param), "TEST")
    np.testing.assert_array_equal(net.blobs["im_info"].data, [[96, 128, 1]])
    net.forward()
    assert len(net.blobs["rois"].data) == 20


SSD = inputs(loc=(2, 16), conf=(2, 12), prior=(1, 2, 16), truth=(1, 1, 6, 8))
MULTI_BOX = layer("loss", "MultiBoxLoss", "loc conf prior truth", "loss", "multibox_loss_param { num_classes: 3 }")


def test_ground_truth_and_prior_boxes_are_boxes():
    net = drawn_net("force_backward: true " + SSD + MULTI_BOX)
    truth, prior = net.blobs["truth"].data.reshape(-1, 8), net.blobs["prior"].data.reshape(2, -1, 4)
    assert set(truth[:, 0]) == {0, 1} and set(truth[:, 1]) <= {1, 2} and not truth[:, 7].any()
    for boxes in (truth[:, 3:7], prior[0]):
        assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    np.testing.assert_allclose(prior[1], np.broadcast_to([0.1, 0.1, 0.2, 0.2], prior[1].shape))
    net.forward()
    assert net.blobs["loss"].data > 0


def test_cont_of_a_recurrent_layer_is_0_or_1_where_it_is_sliced_out():
    text = inputs(x=(5, 2, 3), both=(10, 2)) + layer("s", "Slice", "both", "cont rest", "slice_param { axis: 0 }")
    param = "recurrent_param { num_output: 4 weight_filler { type: 'uniform' min: -1 max: 1 } }"
    text += layer("lstm", "LSTM", "x cont", "h", param) + layer("silence", "Silence", "rest")
    both = drawn_net(text, "TEST").blobs["both"].data
    assert set(both[:5].ravel()) == {0, 1} and len(np.unique(both[5:])) == 10


# Weights -------------------------------------------------------------------------------------------------------------


def checkable(text, phase="TEST", arrays=None, seed=0):
    net = net_of(text, phase, seed=seed)
    fed = feed(net, arrays or {}, "f.npz")
    draw_inputs(net, fed, seed, zeros=True)
    draw_weights(net, seed)
    return net


def sizes(net):
    net.forward()
    return {name: float(np.sqrt(np.mean(np.square(blob.data)))) for name, blob in net.blobs.items()}


def conv(name, bottom, top, more=""):
    param = f"convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {more} }}"
    return layer(name, "Convolution", bottom, top, param)


def deep(block, count=30):
    return inputs(x0=(2, 8, 8, 8)) + "".join(block(f"x{i}", f"x{i + 1}", i) for i in range(count))


CHAINS = {
    "convolution": lambda a, b, i: conv(f"c{i}", a, b) + layer(f"r{i}", "ReLU", b, b),
    "batch norm": lambda a, b, i: (
        conv(f"c{i}", a, b)
        + layer(f"n{i}", "BatchNorm", b, b)
        + layer(f"s{i}", "Scale", b, b, "scale_param { bias_term: true }")
        + layer(f"r{i}", "ReLU", b, b)
    ),
    "deconvolution": lambda a, b, i: layer(
        f"c{i}", "Deconvolution", a, b, "convolution_param { num_output: 8 kernel_size: 3 pad: 1 }"
    ),
    "residual": lambda a, b, i: conv(f"c{i}", a, f"y{i}") + layer(f"e{i}", "Eltwise", f"{a} y{i}", b),
    "prelu": lambda a, b, i: conv(f"c{i}", a, b) + layer(f"p{i}", "PReLU", b, b),
    "exploding": lambda a, b, i: conv(f"c{i}", a, b, 'weight_filler { type: "gaussian" std: 3 }'),
    "vanishing": lambda a, b, i: conv(f"c{i}", a, b, 'weight_filler { type: "gaussian" std: 0.001 }'),
    "pspnet": lambda a, b, i: (
        conv(f"c{i}", a, b) + layer(f"n{i}", "BN", b, b, "bn_param { momentum: 0.9 frozen: true }")
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_activations_neither_vanish_nor_explode(chain):
    net = checkable(deep(CHAINS[chain]))
    assert all(1e-4 < size < 1e4 for size in sizes(net).values())
    assert not proves_nothing(DATA.keyed({name: blob.data for name, blob in net.blobs.items()}))


def test_statistics_are_plausible_and_survive_the_drawing():
    bn = checkable(deep(CHAINS["batch norm"], 2), "TRAIN").params["n1"]
    assert bn[2].data == [1] and (bn[1].data > 0).all() and np.unique(bn[0].data).size == 8


def test_scales_slopes_and_biases_are_not_trivial():
    net = checkable(
        inputs(x=(2, 4, 3, 3))
        + layer("s", "Scale", "x", "a", "scale_param { filler { value: 1 } bias_term: true }")
        + layer("p", "PReLU", "a", "b")
        + layer("n", "Normalize", "b", "c", "norm_param { channel_shared: false }")
        + layer("bias", "Bias", "c", "d")
        + inner_product("ip", "d", "e", fillers="")
    )
    for blob in net.learnable.values():
        assert blob.data.any() and np.unique(blob.data).size == blob.count


def test_what_the_prototxt_asks_for_stays():
    text = inputs(x=(4, 5)) + inner_product("ip", "x", "y", fillers='weight_filler { type: "xavier" }')
    text += layer("s", "Scale", "y", "z", "scale_param { filler { value: 3 } }")
    net, plain = checkable(text), net_of(text, "TEST", seed=0)
    np.testing.assert_array_equal(net.params["ip"][0].data, plain.params["ip"][0].data)
    assert (net.params["s"][0].data == 3).all() and net.params["ip"][1].data.any()


def test_what_is_fed_stays():
    text = inputs(x=(4, 5)) + inner_product("ip", "x", "y", fillers="")
    net = checkable(text, arrays={"param/ip/0": np.zeros((3, 5)), "in/x": np.ones((4, 5))})
    assert not net.params["ip"][0].data.any() and (net.blobs["x"].data == 1).all()


def test_the_drawing_depends_on_the_seed_and_leaves_inputs_and_random_numbers_alone():
    text = inputs(x=(4, 5)) + layer("r", "ReLU", "x", "x") + inner_product("ip", "x", "y", fillers="")
    net, same, other = (checkable(text, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(net.params["ip"][0].data, same.params["ip"][0].data)
    assert not np.array_equal(net.params["ip"][0].data, other.params["ip"][0].data)
    assert (net.blobs["x"].data < 0).any()
    assert net.random.random() == net_of(text, "TEST", seed=1).random.random()


def test_data_that_is_filled_with_zeros_is_drawn():
    dummy = layer("d", "DummyData", "", "x t", "dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 } }")
    text = dummy + inner_product("ip", "x", "y") + layer("loss", "SoftmaxWithLoss", "y t", "loss")
    net = checkable(text, "TRAIN")
    assert net.blobs["x"].data.std() > 0.5 and set(net.blobs["t"].data) <= {0, 1, 2}


# What proves nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, proves",
    [(np.zeros(3), 0), (np.zeros(()), 0), (np.full((2, 2), 7), 0), (np.ones(1), 1), (np.arange(3), 1), (np.ones(0), 1)],
)
def test_all_zero_or_all_equal_proves_nothing(array, proves):
    assert proves_nothing({"data/x": array, "diff/x": np.zeros(2)}) == ([] if proves else ["x"])


def test_it_is_said_in_a_note_and_counted_in_the_last_line():
    from caffe_tools.report.tables import check_verdict

    text = inputs(x=(4, 5)) + inner_product("ip", "x", "y", fillers="") + layer("r", "Sigmoid", "y", "z")
    (result,) = check(drawn_net(text, "TEST"))
    assert result.notes == ["blobs 'y', 'z' prove nothing: all of each is 0 or the same number"]
    assert check_verdict(result).endswith("; 2 blobs prove nothing.")
    (result,) = check(checkable(text))
    assert not result.notes and "nothing" not in check_verdict(result)
