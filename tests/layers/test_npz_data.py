"""NpzDataLayer: arrays of a file in batches."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_layers import LayerError, NpzDataLayer, ParameterError
from caffe_tools.net.blob import Blob
from caffe_tools.net.python_layer import make_instance


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, image=np.arange(5 * 2 * 3).reshape(5, 2, 3), label=np.arange(5, dtype=np.int64))
    return str(path)


def _layer(params, tops=2):
    param_str = ", ".join(f"{key}: {value!r}" for key, value in params.items())
    layer, top = make_instance(NpzDataLayer, param_str, "TRAIN"), [Blob(()) for _ in range(tops)]
    layer.setup([], top)
    layer.reshape([], top)
    return layer, top


def _batches(params, number, index=-1):
    layer, top = _layer(params)
    batches = []
    for _ in range(number):
        layer.reshape([], top)
        layer.forward([], top)
        batches.append(top[index].data.copy())
    return batches


def test_the_tops_are_the_arrays_in_the_order_of_the_file_as_float32(source):
    layer, top = _layer({"source": source, "batch_size": 2})
    layer.forward([], top)
    assert top[0].data.shape == (2, 2, 3) and top[1].data.shape == (2,)
    np.testing.assert_array_equal(top[0].data, np.arange(12).reshape(2, 2, 3))
    assert top[1].data.dtype == np.float32


def test_batches_wrap_around_at_the_end_of_the_data(source):
    batches = _batches({"source": source, "batch_size": 2}, 4)
    np.testing.assert_array_equal(batches, [[0, 1], [2, 3], [4, 0], [1, 2]])


def test_a_batch_may_be_larger_than_the_data(source):
    np.testing.assert_array_equal(_batches({"source": source, "batch_size": 7}, 1), [[0, 1, 2, 3, 4, 0, 1]])


def test_keys_choose_and_order_the_tops(source):
    layer, top = _layer({"source": source, "batch_size": 1, "keys": ["label"]}, tops=1)
    layer.forward([], top)
    assert top[0].data.shape == (1,)
    layer, top = _layer({"source": source, "batch_size": 1, "keys": ["label", "image"]})
    assert [blob.shape for blob in top] == [(1,), (1, 2, 3)]


def test_shuffled_epochs_have_every_sample_once_each_in_its_own_order(source):
    labels = np.concatenate(_batches({"source": source, "batch_size": 5, "shuffle": True}, 6)).reshape(6, 5)
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in labels)
    assert len({tuple(epoch) for epoch in labels}) > 1


def test_the_seed_gives_the_order(source):
    params = {"source": source, "batch_size": 3, "shuffle": True}
    first, same, other = (_batches({**params, "seed": seed}, 9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_shuffling_keeps_the_arrays_together(source):
    layer, top = _layer({"source": source, "batch_size": 4, "shuffle": True})
    layer.forward([], top)
    np.testing.assert_array_equal(top[0].data[:, 0, 0], top[1].data * 6)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("taken", [1, 3, 4])
def test_its_state_lets_another_layer_go_on_with_the_same_batches(shuffle, taken, source):
    params = {"source": source, "batch_size": 2, "shuffle": shuffle, "seed": 3}
    expected = _batches(params, taken + 8)
    first, top = _layer(params)
    for _ in range(taken):
        first.forward([], top)
    state = first.get_state()
    first.forward([], top)  # which must not change the state that was given away
    second, top = _layer({**params, "seed": 4})
    second.set_state(state)
    for batch in expected[taken:]:
        second.forward([], top)
        np.testing.assert_array_equal(top[-1].data, batch)


def test_the_state_of_other_data_is_an_error(source, tmp_path):
    np.savez(tmp_path / "other.npz", image=np.zeros((7, 2)), label=np.zeros(7))
    state = _layer({"source": source, "batch_size": 2})[0].get_state()
    with pytest.raises(LayerError, match="the state is that of 5 samples, but '.*other.npz' has 7: it is other data"):
        _layer({"source": str(tmp_path / "other.npz"), "batch_size": 2})[0].set_state(state)


def test_backward_does_nothing(source):
    layer, top = _layer({"source": source, "batch_size": 1})
    layer.backward(top, [], [])


def _refused(error, message, params, tops=2):
    with pytest.raises(error) as raised:
        _layer(params, tops)
    assert str(raised.value).startswith("NpzDataLayer: ") and "\n" not in str(raised.value)
    assert message in str(raised.value)


def test_missing_parameters_and_wrong_numbers_of_tops_are_errors(source):
    _refused(ParameterError, "parameter 'source' is required", {"batch_size": 1})
    _refused(ParameterError, "parameter 'batch_size' is required", {"source": source})
    _refused(ParameterError, "must be an integer, 1 or more", {"source": source, "batch_size": 0})
    _refused(
        ParameterError, "there are 1 tops for the 2 arrays ['image', 'label']", {"source": source, "batch_size": 1}, 1
    )
    _refused(ParameterError, "has no array 'x', only", {"source": source, "batch_size": 1, "keys": ["x", "label"]})


def test_files_that_are_no_archive_of_plain_arrays_are_errors(tmp_path):
    def source(name):
        return {"source": str(tmp_path / name), "batch_size": 1}

    _refused(LayerError, "missing.npz' is no file (looked for in ", source("missing.npz"))
    (tmp_path / "text.npz").write_text("hello")
    _refused(LayerError, "text.npz' is no .npz (a text file?)", source("text.npz"))
    np.save(tmp_path / "single.npy", np.zeros(3))
    _refused(LayerError, "holds a single array", source("single.npy"))
    np.savez(tmp_path / "pickled.npz", a=np.array([{}, {}], object), b=np.zeros(2))
    _refused(LayerError, "pickled.npz' is no .npz of plain arrays", source("pickled.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:100])
    _refused(LayerError, "cut.npz' is no .npz of plain arrays", source("cut.npz"))


def test_arrays_that_are_no_samples_are_errors(tmp_path):
    def source(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return {"source": str(tmp_path / "data.npz"), "batch_size": 1}

    _refused(LayerError, "must have the same first dim", source(a=np.zeros(3), b=np.zeros((2, 4))))
    _refused(LayerError, "array 'b' of ", source(a=np.zeros(3), b=np.array(["x", "y", "z"])))
    _refused(LayerError, "is a single number", source(a=np.zeros(3), b=np.array(1.0)))
    _refused(LayerError, "hold no sample", source(a=np.zeros((0, 2)), b=np.zeros(0)))
