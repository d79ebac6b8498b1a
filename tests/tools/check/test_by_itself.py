"""Where whole runs differ, each layer is judged by itself: kinks and ties are explained, and faults are found."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.check.check import check, run_layers
from caffe_tools.report.page import check_as_html
from caffe_tools.report.tables import check_verdict
from nets import FORCE, convolution, drawn_net, euclidean_loss, inner_product, inputs, layer
from planted import CHECK, planted

NORM = layer("norm", "BatchNorm", "x", "x")
RELU = layer("relu", "ReLU", "x", "x")


def net_with(*layers: str) -> str:
    return inputs(data=(4, 5), target=(4, 3)) + "".join(layers) + inner_product("ip2", "x", "y") + euclidean_loss("y")


def wrong_rows(result):
    return [(row.key, row.layer) for row in result.rows if not row.agrees]


def test_a_reference_on_the_other_side_of_a_kink_agrees_and_is_told():
    text = FORCE + inputs(data=(1, 4)) + inner_product("ip", "data", "x", outputs=4) + layer("r", "ReLU", "x", "y")
    net = drawn_net(text)
    data, weights = net.blobs["data"].data, net.params["ip"]
    weights[1].data[0] -= (weights[0].data @ data[0] + weights[1].data)[0]  # the first sum is 0, or just beside it
    weights[1].data[0] += np.float32(1e-7)
    layers, _ = run_layers(net, training=True)
    theirs = {key: array.copy() for key, array in layers.arrays.items()}
    x, diff = theirs["data/x"], net.blobs["y"].diff
    x[0, 0] = -x[0, 0] or np.float32(-1e-7)
    theirs["data/y"] = np.maximum(x, 0)
    theirs["diff/x"] = diff * (x > 0)
    theirs["diff/data"] = theirs["diff/x"] @ weights[0].data
    theirs["pdiff/ip/0"], theirs["pdiff/ip/1"] = theirs["diff/x"].T @ data, theirs["diff/x"][0]
    ours, _ = check(net, theirs, "theirs")
    assert ours.agrees
    assert ours.reasons == ["kink at ReLU 'r': 1 element on different sides of 0"]
    assert "agree layer by layer" in check_verdict(ours) and "explained above" in check_verdict(ours)
    explained = {row.key for row in ours.rows if row.explained}
    assert {"diff/x", "diff/data", "pdiff/ip/0"} <= explained
    page = check_as_html([ours])
    assert "by itself" in page and "accumulated: kink" in page
    assert ours.as_json()["rows"][0]["explained"] in (True, False)


def test_the_choice_at_a_tie_of_a_maximum_is_explained():
    text = FORCE + inputs(data=(1, 1, 2, 2)) + layer("copy", "Power", "data", "x", "power_param { scale: 2 }")
    text += layer("pool", "Pooling", "x", "y", "pooling_param { pool: MAX kernel_size: 2 }")
    net = drawn_net(text)
    net.blobs["data"].data[...] = [[[[1, 1 + 1e-7], [0, 0]]]]
    layers, _ = run_layers(net, training=True)
    theirs = {key: array.copy() for key, array in layers.arrays.items()}
    theirs["data/x"] = theirs["data/x"][..., ::-1].copy()
    for key in ("diff/x", "diff/data"):
        theirs[key] = theirs[key][..., ::-1].copy()
    ours, _ = check(net, theirs, "theirs")
    assert ours.agrees and ours.reasons == ["tie at Pooling 'pool': 1 element taken from elsewhere"]


@pytest.mark.parametrize("behind", [NORM, RELU, NORM + RELU], ids=["norm", "relu", "both"])
def test_a_layer_is_named_though_layers_work_in_place_on_its_top(behind, monkeypatch):
    text = net_with(inner_product("ip", "data", "x"), behind)
    right = CHECK.export

    def wrong(net, options):
        exported = right(net, options)
        inner = next(name for result, name in exported.inner_data.items() if result == ("x", 1))
        exported.outputs["inner"] = inner
        return exported

    monkeypatch.setattr(CHECK, "export", wrong)
    with planted("inner"):
        (result,) = check(drawn_net(text))
    assert not result.agrees and result.first_wrong.layer == "ip"
    assert {name for _, name in wrong_rows(result)} == {"ip"}


def test_the_reader_of_a_split_whose_gradient_is_wrong_is_named():
    text = inputs(data=(4, 5), target=(4, 3)) + inner_product("ip", "data", "x")
    text += inner_product("a", "x", "ya") + inner_product("b", "x", "yb")
    text += layer("sum", "Eltwise", "ya yb", "y") + euclidean_loss("y")
    with planted("diff/ya"):
        (result,) = check(drawn_net(text))
    assert result.first_wrong.key == "diff/ya" and result.first_wrong.layer == "sum"
    assert {name for _, name in wrong_rows(result)} == {"sum"}


def test_the_diff_that_a_layer_leaves_which_does_not_propagate_is_that_of_the_later_result():
    text = inputs(data=(4, 3, 5, 5), label=(4,))
    text += layer("bn", "BatchNorm", "data", "x", "param { lr_mult: 0 } " * 3)
    text += layer("scale", "Scale", "x", "x", "scale_param { filler { value: 3 } bias_term: true }")
    text += inner_product("fc", "x", "fc") + layer("loss", "SoftmaxWithLoss", "fc label", "loss")
    (result,) = check(drawn_net(text))
    assert result.agrees and not result.reasons


def test_an_untrained_batchnorm_enlarges_rounding_and_that_is_told():
    text = inputs(data=(1, 3, 16, 16))
    bottom = "data"
    for i in range(16):
        text += convolution(f"c{i}", bottom, f"c{i}").replace("kernel_size: 3", "kernel_size: 3 pad: 1")
        text += layer(f"bn{i}", "BatchNorm", f"c{i}", f"c{i}", "batch_norm_param { use_global_stats: true }")
        text += layer(f"g{i}", "Sigmoid", f"c{i}", f"g{i}")
        text += layer(f"m{i}", "Eltwise", f"c{i} g{i}", f"m{i}", "eltwise_param { operation: PROD }")
        bottom = f"m{i}"
    (result,) = check(drawn_net(text, "TEST"))
    assert result.agrees


def test_diffs_of_the_copies_that_a_split_makes_are_compared_where_a_reference_has_them():
    text = inputs(data=(4, 5), target=(4, 3)) + inner_product("ip", "data", "x") + layer("r", "ReLU", "x", "a")
    text += layer("sum", "Eltwise", "x a", "y") + euclidean_loss("y")
    net = drawn_net(text)
    layers, _ = run_layers(net, training=True)
    copies = {f"diff/{name}": net.blobs[name].diff.copy() for name in net.copies}
    assert len(copies) == 2
    for result in check(drawn_net(text), {**layers.arrays, **copies}, "theirs"):
        assert result.agrees and set(copies) <= {row.key for row in result.rows}
