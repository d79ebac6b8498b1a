"""Two runs compared: what counts as agreement, what a comparison holds, and what is said of what was not compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import nets
from caffe_tools.check.check import check, run_layers
from caffe_tools.check.compare import CheckResult, compare, difference
from caffe_tools.errors import NetError
from caffe_tools.files import strict_json
from caffe_tools.report.page import check_as_html
from nets import FORCE, drawn_net, euclidean_loss, inner_product, inputs, layer, python

numbers = st.floats(-1e6, 1e6, width=32)
tensors = arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=numbers)


def differs(expected, found, rtol=1e-4, atol=0.0, scale=None):
    expected, found = np.asarray(expected, np.float32), np.asarray(found, np.float32)
    return difference("data/x", "layer", expected, found, rtol, atol, scale)


# Agreement -----------------------------------------------------------------------------------------------------------


@given(tensors)
def test_an_array_agrees_with_itself(array):
    row = differs(array, array, rtol=0)
    assert row.agrees and row.absolute == row.relative == 0 and row.where == ()


@given(tensors, st.data())
def test_an_element_that_is_off_by_more_than_rtol_of_the_largest_value_is_found(array, draw):
    where = tuple(draw.draw(st.integers(0, dim - 1)) for dim in array.shape)
    largest = float(np.abs(array).max())
    moved = array.astype(np.float64)
    moved[where] += 0.01 * largest + 1e-3
    row = difference("data/x", "layer", array, moved, 1e-3, 0.0)
    assert not row.agrees
    assert row.where == where
    assert row.largest == largest
    assert row.absolute == pytest.approx(0.01 * largest + 1e-3)


def test_the_difference_may_be_rtol_times_the_largest_value_and_atol_besides():
    assert differs([1, 100], [1.5, 100], rtol=0.005).agrees
    assert not differs([1, 100], [1.5, 100], rtol=0.0049).agrees
    assert differs([1, 100], [1.5, 100], rtol=0.0049, atol=0.011).agrees
    assert differs([0, 0], [0, 1e-7], atol=1e-6).agrees


def test_nothing_is_near_an_array_of_zeros_but_zeros():
    row = differs([0, 0], [0, 1e-30])
    assert not row.agrees and row.relative == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_agrees_with_the_same_alone(value):
    same, other = differs([value, 1], [value, 1]), differs([value, 1], [2, 1])
    assert same.agrees and same.not_finite == 1
    assert not other.agrees and other.where == (0,)
    assert other.note == f"2, expected {value:g}"
    assert not differs([2, 1], [value, 1]).agrees
    assert not differs([value, 1], [-value if value == value else np.inf, 1]).agrees


def test_arrays_of_other_shapes_do_not_agree():
    row = differs([1, 1], [[1, 1]])
    assert not row.agrees and row.note == "shape (1, 2), expected (2,)"


def test_an_array_that_is_missing_does_not_agree():
    (row,) = compare({"data/x": np.ones(2)}, {}, {}, 1e-4, 0)
    assert not row.agrees and row.note == "missing"


def test_arrays_without_elements_agree():
    assert differs(np.zeros((0, 3)), np.zeros((0, 3))).agrees


def test_the_gradients_of_one_layers_parameters_are_measured_together():
    expected = {"pdiff/ip/0": np.ones(3), "pdiff/ip/1": np.float64([1e-9]), "pdiff/other/0": np.float64([1e-9])}
    found = {"pdiff/ip/0": np.ones(3), "pdiff/ip/1": np.float64([3e-9]), "pdiff/other/0": np.float64([3e-9])}
    agrees = {row.key: row.agrees for row in compare(expected, found, {}, 1e-4, 0)}
    assert agrees == {"pdiff/ip/0": True, "pdiff/ip/1": True, "pdiff/other/0": False}


def test_a_comparison_of_nothing_does_not_agree():
    assert not CheckResult("net", "TEST", "a", "b", 1e-4, 0).agrees


def test_json_has_words_for_numbers_that_are_not_finite():
    value = {"a": [np.inf, -np.inf, np.nan, 1.5], "b": ({"c": float("nan")},), "d": True, "e": None}
    text = json.dumps(strict_json(value), allow_nan=False)
    assert json.loads(text) == {"a": ["Infinity", "-Infinity", "NaN", 1.5], "b": [{"c": "NaN"}], "d": True, "e": None}


# What is compared ----------------------------------------------------------------------------------------------------

NET = (
    inputs(data=(4, 5), target=(4, 3))
    + inner_product("ip", "data", "x")
    + layer("relu", "ReLU", "x", "x")
    + inner_product("ip2", "x", "y")
    + euclidean_loss("y")
)
KEYS = ["data/x", "data/y", "data/loss", "diff/y", "diff/x", "pdiff/ip/0", "pdiff/ip/1", "pdiff/ip2/0", "pdiff/ip2/1"]


def keys(result):
    return [row.key for row in result.rows]


def test_blobs_come_in_their_order_then_gradients_backwards_then_parameters():
    (result,) = check(drawn_net(NET))
    assert result.agrees and keys(result) == KEYS


def test_each_row_names_the_layer_that_computes_it():
    (result,) = check(drawn_net(NET))
    layers = {row.key: row.layer for row in result.rows}
    assert layers["data/x"] == "relu"  # the last that wrote it
    assert layers["diff/y"] == "loss"
    assert layers["pdiff/ip/0"] == "ip"


def test_in_test_phase_there_is_no_backward():
    (result,) = check(drawn_net(NET, "TEST"))
    assert keys(result) == KEYS[:3]


def test_both_runs_of_dropout_have_the_same_random_numbers():
    text = inputs(data=(40, 5)) + inner_product("ip", "data", "x")
    net = drawn_net(text + layer("drop", "Dropout", "x", "y", "dropout_param { dropout_ratio: 0.5 } loss_weight: 1"))
    (result,) = check(net)
    assert result.agrees and "diff/x" in keys(result)
    assert 0.3 < (net.blobs["y"].data == 0).mean() < 0.7


def test_the_statistics_that_a_forward_pass_leaves_are_compared():
    text = NET.replace(euclidean_loss("y"), layer("norm", "BatchNorm", "y", "norm") + euclidean_loss("norm"))
    (result,) = check(drawn_net(text))
    assert result.agrees
    assert {"param_after/norm/0", "param_after/norm/1", "param_after/norm/2"} <= set(keys(result))


def test_statistics_that_the_forward_pass_only_uses_are_not_compared():
    norm = layer("norm", "BatchNorm", "y", "norm", "batch_norm_param { use_global_stats: true }")
    net = drawn_net(NET.replace(euclidean_loss("y"), norm + euclidean_loss("norm")))
    net.params["norm"][1].data[...] = net.params["norm"][2].data[...] = 1
    (result,) = check(net)
    assert result.agrees
    assert not [key for key in keys(result) if key.startswith("param_after")]


def test_a_net_without_a_loss_starts_from_the_diffs_that_its_outputs_hold():
    net = drawn_net(FORCE + inputs(data=(4, 5)) + layer("relu", "ReLU", "data", "y"))
    net.blobs["y"].diff[...] = 7
    (result,) = check(net)
    assert result.agrees
    assert [row.largest for row in result.rows if row.key == "diff/data"] == [7]


def test_a_net_that_computes_nothing_is_an_error():
    with pytest.raises(NetError, match="there is nothing to compare: the net computes no blob, it only has data"):
        check(drawn_net(inputs(data=(4, 5)) + layer("silence", "Silence", "data")))


# Notes ---------------------------------------------------------------------------------------------------------------


def test_a_python_loss_without_a_loss_weight_is_pointed_out():
    text = inputs(data=(4, 5), label=(4,)) + inner_product("ip", "data", "x")
    text += python("classify", "SoftmaxLossLayer", "x label", "loss").replace("loss_weight: 1", "")
    (result,) = check(drawn_net(text))
    (note,) = result.notes
    assert "no gradient was checked" in note and "give layer 'classify' loss_weight: 1" in note


def test_a_net_in_which_nothing_learns_under_a_loss_is_pointed_out():
    (result,) = check(drawn_net(inputs(data=(4, 5)) + inner_product("ip", "data", "x")))
    assert result.notes == [
        "no gradient was checked: no learnable blob lies under a loss; force_backward: true asks for the gradients all"
        " the same"
    ]


def test_blobs_that_are_shared_permissively_are_one_and_compared_once():
    text = inputs(x=(2, 3), y=(2, 6))
    for name, bottom, outputs in (("a", "x", 4), ("b", "y", 2)):
        rest = f"inner_product_param {{ num_output: {outputs} bias_term: false weight_filler {{ type: 'xavier' }} }}"
        shared = "param { name: 'w' share_mode: PERMISSIVE } loss_weight: 1"
        text += layer(name, "InnerProduct", bottom, name, f"{rest} {shared}")
    (result,) = check(drawn_net(text))
    assert result.agrees and [key for key in keys(result) if key.startswith("pdiff/")] == ["pdiff/a/0"]


# Against a reference -------------------------------------------------------------------------------------------------


def reference(**changes):
    layers, _ = run_layers(drawn_net(NET), training=True)
    return {**layers.arrays, **changes}


def test_against_a_reference_both_runs_are_compared_with_it():
    results = check(drawn_net(NET), reference(), "theirs")
    assert [(result.run, result.reference) for result in results] == [
        ("layer by layer", "theirs"),
        ("ONNX Runtime", "theirs"),
    ]
    assert all(result.agrees and keys(result) == KEYS and not result.notes for result in results)


def test_rows_stand_in_the_nets_order_whatever_the_order_of_the_reference():
    backwards = dict(reversed(reference().items()))
    assert keys(check(drawn_net(NET), backwards, "theirs")[0]) == KEYS


def test_the_first_that_goes_wrong_is_the_first_that_the_net_computes():
    wrong = {key: array + 1 for key, array in reference().items() if key in ("data/y", "diff/y", "pdiff/ip/0")}
    for result in check(drawn_net(NET), reference(**wrong), "theirs"):
        assert not result.agrees and result.first_wrong.key == "data/y"


def test_what_only_one_side_has_is_told():
    theirs = reference(**{"data/nobody": np.zeros(3)})
    del theirs["data/y"]
    ours, _ = check(drawn_net(NET), theirs, "theirs")
    assert ours.agrees
    assert ours.notes == [
        "not compared, since this run has no such value: data/nobody",
        "not compared, since theirs has no such value: data/y",
    ]


def test_zero_diffs_of_what_gets_no_gradient_are_no_news():
    theirs = reference(**{"diff/data": np.zeros((4, 5)), "diff/target": np.zeros((4, 3)), "data/data": np.ones(1)})
    assert not check(drawn_net(NET), theirs, "theirs")[0].notes


def test_a_diff_where_this_net_has_none_does_not_agree():
    ours, _ = check(drawn_net(NET), reference(**{"diff/data": np.ones((4, 5))}), "theirs")
    assert not ours.agrees and ours.first_wrong.key == "diff/data"


def test_the_diff_of_a_loss_is_its_loss_weight():
    for weight, agrees in ((1, True), (2, False)):
        results = check(drawn_net(NET), reference(**{"diff/loss": np.float32(weight)}), "theirs")
        assert [result.agrees for result in results] == [agrees, agrees]


def test_zero_diffs_of_what_does_not_learn_are_compared():
    text = NET.replace(inner_product("ip2", "x", "y"), inner_product("ip2", "x", "y", "param { lr_mult: 0 }"))
    for wrong, agrees in ((0, True), (1, False)):
        theirs = {**reference(), "pdiff/ip2/0": np.full((3, 3), wrong, np.float32)}
        results = check(drawn_net(text), theirs, "theirs")
        assert [result.agrees for result in results] == [agrees, agrees]


def test_a_reference_without_any_value_of_the_net_is_an_error():
    with pytest.raises(NetError, match=r"theirs holds no data/…, diff/…, pdiff/…, param_after/… of this net"):
        check(drawn_net(NET), {"data/other": np.ones(3)}, "theirs")


# The page ------------------------------------------------------------------------------------------------------------


def test_the_html_page_has_a_row_for_each_value_and_the_verdict():
    page = check_as_html(check(drawn_net(NET), reference(**{"data/y": np.ones((4, 3))}), "<theirs>"))
    assert page.startswith("<!DOCTYPE html>")
    assert page.count('<tr class="') == 2 * len(KEYS)
    assert "&lt;theirs&gt;" in page and "<theirs>" not in page
    assert "1 of 9 differ. The first that goes wrong: blob &#x27;y&#x27; (layer &#x27;ip2&#x27;)" in page


ROWS_IN_FORWARD = """
from caffe_layers.layer import Layer


class RowsInForward(Layer):
    def setup(self, bottom, top):
        top[0].reshape(1, 3)
        self.count = 1

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.count += 1
        top[0].reshape(self.count, 3)
        top[0].data[...] = self.count

    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_the_graph_is_built_for_the_shapes_that_the_data_layers_give_in_forward(phase, tmp_path, monkeypatch):
    (tmp_path / "rows_layers.py").write_text(ROWS_IN_FORWARD)
    monkeypatch.syspath_prepend(tmp_path)
    net = nets.net_of(
        layer("data", "Python", "", "x", 'python_param { module: "rows_layers" layer: "RowsInForward" }')
        + layer("ip", "InnerProduct", "x", "ip", "inner_product_param { num_output: 2 weight_filler { value: 1 } }")
        + layer("s", "Reduction", "ip", "s", "reduction_param { operation: SUMSQ } loss_weight: 1"),
        phase,
        allow_modules=["rows_layers"],
    )
    (result,) = check(net)
    assert result.agrees and net.blobs["ip"].shape == (2, 2)
    assert net.layer_dict["data"].instance.count == 2  # it has run once
