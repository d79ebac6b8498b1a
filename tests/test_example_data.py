"""The examples' data is what its scripts and its README say."""

import runpy

import numpy as np
import pytest


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def data(project_root):
    return project_root / "prototxt_examples" / "data"


@pytest.mark.parametrize("split, count, seed", [("train", 96, 0), ("test", 32, 1)])
def test_the_stored_shapes_are_those_that_the_script_draws(split, count, seed, data):
    drawn = runpy.run_path(str(data / "make_shapes.py"))["examples"](count, seed)
    stored = load(data / f"shapes_{split}.npz")
    assert list(stored) == list(drawn)
    for name in stored:
        assert stored[name].dtype == drawn[name].dtype
        np.testing.assert_allclose(stored[name], drawn[name], rtol=1e-6)


def test_every_shape_has_an_anchor_and_its_box_is_fitted_there(data):
    shapes = load(data / "shapes_train.npz")
    foreground = shapes["label"] > 0
    assert foreground.any(axis=(1, 2)).all()
    mask = shapes["box_mask"].reshape(96, 3, 4, 64)
    assert np.array_equal(mask, np.repeat(foreground[:, :, np.newaxis], 4, axis=2))
    assert not shapes["box_target"][shapes["box_mask"] == 0].any()


@pytest.mark.parametrize("split, count", [("train", 1497), ("test", 300)])
def test_the_pairs_are_the_digits_side_by_side(split, count, data):
    digits, pairs = load(data / f"digits_{split}.npz"), load(data / f"digit_pairs_{split}.npz")
    assert digits["data"].shape == (count, 1, 8, 8) and digits["data"].max() == 16
    assert np.bincount(digits["label"]).min() > 0.08 * count  # ten classes of about equal size
    for side, first in ((np.s_[..., :8], 0), (np.s_[..., 8:], 1)):
        rows = slice(first, 2 * (count // 2), 2)
        assert np.array_equal(pairs["data"][side], digits["data"][rows])
        assert pairs["label"][np.arange(count // 2), digits["label"][rows]].all()
    assert pairs["label"].sum(axis=1).max() == 2


def test_the_stored_digits_are_scikit_learns(data):
    digits = pytest.importorskip("sklearn.datasets", reason="scikit-learn has the originals").load_digits()
    stored = np.concatenate([load(data / f"digits_{split}.npz")["data"] for split in ("train", "test")])
    ours, theirs = stored.reshape(1797, 64), digits.images.astype(np.uint8).reshape(1797, 64)
    assert np.array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
