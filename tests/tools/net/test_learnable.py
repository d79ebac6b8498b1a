"""The learnable blobs of a net: shared, loaded and saved."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.errors import CaffeToolsError, NetError
from nets import inputs, layer, net_of

TEXT = inputs(x=(2, 3)) + layer(
    "ip", "InnerProduct", "x", "s", "inner_product_param { num_output: 4 weight_filler { type: 'xavier' } }"
)
PERMISSIVE = "param { name: 'w' share_mode: PERMISSIVE }"


@pytest.fixture
def net():
    return net_of(TEXT)


def error_of(text):
    with pytest.raises(NetError) as raised:
        net_of(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- shared between layers


def two_layers(first, second, sizes=((4, 3), (4, 3))):
    """InnerProduct layers a and b with a weight alone, of these shapes."""
    text = ""
    for name, param, (outputs, width) in (("a", first, sizes[0]), ("b", second, sizes[1])):
        rest = f"inner_product_param {{ num_output: {outputs} bias_term: false }} {param}"
        text += inputs(**{f"x{name}": (2, width)}) + layer(name, "InnerProduct", f"x{name}", name, rest)
    return text


def test_layers_whose_params_have_one_name_share_the_blob_and_its_diff_is_the_sum():
    text = two_layers("param { name: 'w' } loss_weight: 1", "param { name: 'w' } loss_weight: 10")
    net = net_of(text)
    assert net.params["a"][0] is net.params["b"][0]
    net.forward(xa=np.ones((2, 3)), xb=np.ones((2, 3)))
    net.backward()
    assert (net.params["a"][0].diff == 22).all()


def test_shared_blobs_must_have_one_shape():
    message = error_of(two_layers("param { name: 'w' }", "param { name: 'w' }", ((4, 3), (3, 4))))
    assert "param 'w' is shared with layer 'a', whose blob has the shape (4, 3), not (3, 4)" in message


def test_permissively_shared_blobs_need_only_one_count():
    net = net_of(two_layers("param { name: 'w' }", PERMISSIVE, ((4, 3), (2, 6))))
    a, b = net.params["a"][0], net.params["b"][0]
    assert (a.shape, b.shape) == ((4, 3), (2, 6))
    a.data[...] = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(b.data.ravel(), np.arange(12))
    b.diff[...] = 1
    assert (a.diff == 1).all()


def test_permissively_shared_blobs_of_different_counts_are_an_error():
    message = error_of(two_layers("param { name: 'w' }", PERMISSIVE, ((4, 3), (5, 3))))
    assert "whose blob has the shape (4, 3), not (5, 3)" in message


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_shared_blobs_must_have_one_multiplier_where_both_give_one(field):
    first, second = (f"param {{ name: 'w' {field}: {value} }}" for value in (1, 2))
    assert f"param 'w' has {field} 2, but 1 in layer 'a'" in error_of(two_layers(first, second))
    net_of(two_layers("param { name: 'w' }", second))


def test_more_param_blocks_than_learnable_blobs_are_an_error():
    message = error_of(inputs(x=(2,)) + layer("a", "ReLU", "x", "y", "param { lr_mult: 1 }"))
    assert "it has 1 param blocks, but 0 learnable blobs" in message


# --- loaded and saved


def test_weights_that_are_saved_can_be_loaded(net, tmp_path):
    file = tmp_path / "net.caffemodel"
    net.save(file)
    other = net_of(TEXT, seed=5)
    other.copy_from(file)
    for mine, theirs in zip(other.params["ip"], net.params["ip"], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)


def test_layers_that_a_file_has_not_keep_their_weights(net, tmp_path):
    file = tmp_path / "net.caffemodel"
    caffemodel.write(file, [("other", "InnerProduct", [np.ones((4, 3), np.float32)])])
    before = net.params["ip"][0].data.copy()
    net.copy_from(file)
    np.testing.assert_array_equal(net.params["ip"][0].data, before)


def test_old_weights_of_four_axes_fit_blobs_of_fewer(net, tmp_path):
    file = tmp_path / "old.caffemodel"
    weight, bias = np.arange(12, dtype=np.float32).reshape(1, 1, 4, 3), np.ones((1, 1, 1, 4), np.float32)
    caffemodel.write(file, [("ip", "InnerProduct", [weight, bias])])
    net.copy_from(file)
    np.testing.assert_array_equal(net.params["ip"][0].data, weight[0, 0])


def test_weights_of_another_shape_are_an_error(net, tmp_path):
    file = tmp_path / "net.caffemodel"
    caffemodel.write(file, [("ip", "InnerProduct", [np.ones((4, 5), np.float32), np.ones(4, np.float32)])])
    with pytest.raises(NetError, match=r"blob 0 has the shape \(4, 3\), but .*net.caffemodel has \(4, 5\): weights of"):
        net.copy_from(file)


def test_weights_of_another_number_are_an_error(net, tmp_path):
    file = tmp_path / "net.caffemodel"
    caffemodel.write(file, [("ip", "InnerProduct", [np.ones((4, 3), np.float32)])])
    with pytest.raises(NetError, match="has 1 blobs for it, but it has 2: weights of another net"):
        net.copy_from(file)


def test_missing_weights_are_an_error(net, tmp_path):
    with pytest.raises(CaffeToolsError, match="none.caffemodel"):
        net.copy_from(tmp_path / "none.caffemodel")


# --- shared between nets


def test_nets_may_share_their_weights_but_not_their_diffs(net):
    test = net_of(TEXT, "TEST", seed=9)
    test.share_with(net)
    net.params["ip"][0].data[...] = 7
    net.params["ip"][0].diff[...] = 8
    assert (test.params["ip"][0].data == 7).all() and not test.params["ip"][0].diff.any()


def test_nets_whose_weights_have_other_shapes_cannot_share_them(net):
    other = net_of(TEXT.replace("num_output: 4", "num_output: 5"))
    with pytest.raises(NetError, match=r"learnable blobs have the shapes .*\(5, 3\).*, but those of the other net"):
        other.share_with(net)
