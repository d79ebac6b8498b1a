"""Layers that pick or repeat elements: ArgMax, BatchReindex, Filter, Embed, Crop, Tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_tools.errors import NetError
from one_layer import net_over
from open_dims import tops_with_open_dims

# --- ArgMax


def largest(values, count):
    """The places of the largest values, of equal ones the last first, as Caffe sorts pairs of value and place."""
    return [place for _, place in sorted(((v, i) for i, v in enumerate(values)), reverse=True)[:count]]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    top_k=st.integers(1, 4),
    max_val=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_argmax_finds_the_places_or_the_elements(shape, top_k, max_val, seed, data):
    x = np.random.default_rng(seed).integers(0, 4, shape).astype(np.float32)
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    rows = x.reshape(shape[0], -1) if axis is None else np.moveaxis(x, axis, -1)
    top_k = min(top_k, rows.shape[-1])
    places = np.apply_along_axis(largest, -1, rows, top_k).astype(np.float32)
    elements = np.take_along_axis(rows, places.astype(int), -1)
    if axis is None:
        wanted = np.stack([places, elements], axis=1) if max_val else places[:, None]
        wanted = wanted.reshape(*wanted.shape, *[1] * (len(shape) - 3))
    else:
        wanted = np.moveaxis(elements if max_val else places, -1, axis)
    text = f"top_k: {top_k} out_max_val: {str(max_val).lower()}" + (f" axis: {axis}" if axis is not None else "")
    net = net_over("ArgMax", {"x": x}, f"argmax_param {{ {text} }}")
    np.testing.assert_array_equal(net.forward()["top"], wanted)
    assert not net.backward(top=np.ones_like(wanted))["x"].any()


@pytest.mark.parametrize("param", ["", "axis: 1", "axis: 2 top_k: 2", "top_k: 2 out_max_val: true"])
def test_argmax_takes_images_of_any_size(param):
    x = np.random.default_rng(3).normal(size=(2, 3, 5, 4))
    net = net_over("ArgMax", {"x": x}, f"argmax_param {{ {param} }}")
    (found,) = tops_with_open_dims(net, {"x": ("batch", 3, "height", "width")}, {"x": x})
    np.testing.assert_array_equal(found, net.forward()["top"])


@pytest.mark.parametrize("top_k", [0, 6])
def test_argmax_of_more_than_there_is_is_refused(top_k):
    with pytest.raises(NetError, match=f"top_k {top_k} must be 1 to 5"):
        net_over("ArgMax", {"x": np.zeros((2, 5))}, f"argmax_param {{ top_k: {top_k} }}")


# --- items of the batch


def test_batch_reindex_takes_items_in_any_order_and_adds_up_their_diffs():
    net = net_over("BatchReindex", {"x": [[1, 2], [3, 4], [5, 6]], "index": [2, 0, 2, 2]})
    np.testing.assert_array_equal(net.forward()["top"], [[5, 6], [1, 2], [5, 6], [5, 6]])
    net.backward(top=[[1, 0], [2, 0], [4, 0], [8, 1]])
    np.testing.assert_array_equal(net.blobs["x"].diff, [[2, 0], [0, 0], [13, 1]])


def test_batch_reindex_names_an_index_that_is_no_item():
    with pytest.raises(NetError, match="bottom 'index' holds the label 3 at .0,.: labels are 0 to 2"):
        net_over("BatchReindex", {"x": np.zeros((3, 2)), "index": [3]}).forward()


def test_batch_reindex_refuses_indices_in_rows():
    with pytest.raises(NetError, match="bottom 'index' has the shape 3×1: it must be a list of indices"):
        net_over("BatchReindex", {"x": np.zeros((3, 2)), "index": np.zeros((3, 1))})


def test_filter_passes_the_items_that_are_selected_now():
    x, labels = np.arange(8).reshape(4, 2), np.arange(4)
    net = net_over("Filter", {"x": x, "labels": labels, "selector": np.zeros((4, 1, 1))}, tops="top z")
    for selector in ([1, 0, 0, -0.5], [0, 2, 1, 1], [0, 0, 0, 0]):
        kept = np.flatnonzero(selector)
        tops = net.forward(selector=np.reshape(selector, (4, 1, 1)))
        np.testing.assert_array_equal(tops["top"], x[kept])
        np.testing.assert_array_equal(tops["z"], labels[kept])
        net.backward(top=np.ones((len(kept), 2)), z=np.full(len(kept), 7))
        np.testing.assert_array_equal(net.blobs["x"].diff, np.outer(np.not_equal(selector, 0), [1, 1]))
        np.testing.assert_array_equal(net.blobs["labels"].diff, 7 * np.not_equal(selector, 0))
        assert not net.blobs["selector"].diff.any()


@pytest.mark.parametrize(
    ("selector", "tops", "message"),
    [
        (np.zeros((4, 2)), "y", "bottom 'selector' has the shape 4×2, but must have 4×1"),
        (np.zeros(3), "y", "bottom 'x' has the shape 4×2, but must have 3×2: it has one item for each"),
        (np.zeros(4), "top z", "it has 2 tops and 2 bottoms: give a top for each but the last"),
    ],
)
def test_filter_refuses_a_selector_that_does_not_fit(selector, tops, message):
    with pytest.raises(NetError, match=message):
        net_over("Filter", {"x": np.zeros((4, 2)), "selector": selector}, tops=tops)


# --- Embed


def test_embed_looks_up_rows_and_adds_their_diffs_to_the_weight():
    net = net_over("Embed", {"x": [[2, 0], [2, 2]]}, "embed_param { input_dim: 3 num_output: 2 }")
    weight, bias = net.params["layer"]
    weight.data[...], bias.data[...] = [[1, 2], [3, 4], [5, 6]], [10, 20]
    np.testing.assert_array_equal(net.forward()["top"], [[[15, 26], [11, 22]], [[15, 26], [15, 26]]])
    net.backward(top=np.ones((2, 2, 2)))
    np.testing.assert_array_equal(weight.diff, [[1, 1], [0, 0], [3, 3]])
    np.testing.assert_array_equal(bias.diff, [4, 4])


def test_embed_takes_indices_of_any_shape_and_a_fraction_as_its_whole_part():
    net = net_over(
        "Embed", {"x": np.full((2, 1, 3), 1.9)}, "embed_param { input_dim: 3 num_output: 2 bias_term: false }"
    )
    net.params["layer"][0].data[1] = [7, 8]
    np.testing.assert_array_equal(net.forward()["top"], np.broadcast_to([7, 8], (2, 1, 3, 2)))


def test_embed_names_an_index_without_a_row():
    with pytest.raises(NetError, match="holds the label -1 at .0,.: labels are 0 to 2"):
        net_over("Embed", {"x": [-1]}, "embed_param { input_dim: 3 num_output: 2 }").forward()


def test_embed_needs_both_its_sizes():
    with pytest.raises(NetError, match="give num_output and input_dim, both 1 or more"):
        net_over("Embed", {"x": [0]}, "embed_param { num_output: 2 }")


# --- Crop


@pytest.mark.parametrize(
    ("param", "begins"),
    [
        ("", (0, 0, 0, 0)),
        ("offset: 1", (0, 0, 1, 1)),
        ("axis: 1 offset: [1, 0, 2]", (0, 1, 0, 2)),
        ("axis: -1", (0, 0, 0, 0)),
    ],
)
def test_crop_cuts_from_its_axis_on(param, begins):
    x, reference = np.random.default_rng(0).normal(size=(2, 4, 6, 7)), np.zeros((2, 3, 4, 5))
    net = net_over("Crop", {"x": x, "reference": reference}, f"crop_param {{ {param} }}")
    start = {"axis: 1": 1, "axis: -": 3}.get(param[:7], 2)
    part = tuple(slice(b, b + (reference if a >= start else x).shape[a]) for a, b in enumerate(begins))
    y = net.forward()["top"]
    np.testing.assert_array_equal(y, x[part].astype(np.float32))
    net.backward(top=np.ones_like(y))
    wanted = np.zeros(x.shape)
    wanted[part] = 1
    np.testing.assert_array_equal(net.blobs["x"].diff, wanted)
    assert not net.blobs["reference"].diff.any()


def test_crop_takes_the_size_of_a_reference_that_is_known_when_it_runs():
    x, reference = np.random.default_rng(0).normal(size=(2, 3, 6, 7)), np.zeros((2, 1, 3, 5))
    net = net_over("Crop", {"x": x, "reference": reference}, "crop_param { offset: [2, 1] }")
    dims = {"x": ("n", 3, "h", "w"), "reference": ("n", 1, "rows", "columns")}
    (found,) = tops_with_open_dims(net, dims, {"x": x, "reference": reference})
    np.testing.assert_array_equal(found, x[:, :, 2:5, 1:6].astype(np.float32))


@pytest.mark.parametrize(
    ("param", "reference", "message"),
    [
        ("offset: [1, 1, 1]", (1, 2, 2, 2), "offset is given 3 times for 2 axes"),
        ("offset: 3", (1, 2, 2, 2), "axis 2 of bottom 'x' has 4 elements, too few for an offset of 3 and 2 elements"),
        ("", (1, 2, 2), "its bottoms have the shapes 1×2×4×4 and 1×2×2, but must have as many axes"),
        ("axis: 4", (1, 2, 2, 2), "axis 4 is out of range for a blob of 4 axes"),
    ],
)
def test_crop_refuses_a_part_that_is_not_there(param, reference, message):
    with pytest.raises(NetError, match=message):
        net_over("Crop", {"x": np.zeros((1, 2, 4, 4)), "reference": np.zeros(reference)}, f"crop_param {{ {param} }}")


# --- Tile


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tile_repeats_a_blob_and_adds_up_the_diffs_of_the_copies(axis):
    x = np.arange(12).reshape(2, 2, 3)
    net = net_over("Tile", {"x": x}, f"tile_param {{ axis: {axis} tiles: 3 }}")
    y = net.forward()["top"]
    np.testing.assert_array_equal(y, np.concatenate([x] * 3, axis))
    dy = np.random.default_rng(0).normal(size=y.shape)
    wanted = sum(np.split(dy, 3, axis))
    np.testing.assert_allclose(net.backward(top=dy)["x"], wanted, rtol=1e-6, atol=1e-6)


def test_tile_repeats_axes_of_any_size():
    x = np.arange(24).reshape(2, 3, 4)
    net = net_over("Tile", {"x": x}, "tile_param { tiles: 2 }")
    (found,) = tops_with_open_dims(net, {"x": ("n", "steps", "width")}, {"x": x})
    np.testing.assert_array_equal(found, np.tile(x, (1, 2, 1)))


@pytest.mark.parametrize("tiles", ["", "tiles: 0"])
def test_tile_needs_a_number_of_copies(tiles):
    with pytest.raises(NetError, match="tiles is missing or below 1"):
        net_over("Tile", {"x": np.zeros((2, 2))}, f"tile_param {{ {tiles} }}")
