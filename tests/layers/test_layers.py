"""What every layer does on blobs: Caffe's contract, kept for each configuration."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import caffe_layers
from caffe_layers import LayerError, ShapeError
from caffe_layers import functional as F
from caffe_layers.contract import StandInLayer
from caffe_layers.elementwise.losses import ElementwiseLoss
from caffe_tools.net.python_layer import make_instance
from layer_blobs import Run, blob_of
from layer_cases import ACTIVATIONS, CASES, LAYERS, LOSSES, Case

pytestmark = pytest.mark.usefixtures("engine")

TRAIN, TEST = 0, 1
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_loss = pytest.mark.parametrize("layer", LOSSES)
every_activation = pytest.mark.parametrize("layer", ACTIVATIONS)


def _run(case, **keywords):
    return Run(case.layer_class, case.params, case.arrays(), **keywords)


@every_case
def test_forward_and_backward_give_the_loss_and_gradient_of_the_functional_api(case):
    loss, gradient = case.function(*case.arrays(), **case.params)
    run = _run(case).forward()
    assert run.top[0].data.shape == (1,)
    assert run.top[0].data[0] == pytest.approx(loss, rel=1e-7)
    np.testing.assert_array_equal(run.backward(), gradient)


@every_case
def test_bottoms_are_never_written_but_for_the_diff_of_the_scores(case):
    run = _run(case)
    before = [blob.data.copy() for blob in run.bottom]
    for blob in run.bottom:
        blob.diff[...] = 7
        blob.data.flags.writeable = False
    run.forward().backward()
    for blob, data in zip(run.bottom, before, strict=True):
        np.testing.assert_array_equal(blob.data, data)
    assert all((blob.diff == 7).all() for blob in run.bottom[1:])


@every_loss
def test_backward_scales_by_the_diff_of_the_top(layer):
    run = _run(Case(layer, (4, 5, 2))).forward()
    once = run.backward(1.0)
    np.testing.assert_allclose(run.backward(-0.37), -0.37 * once, rtol=3e-7)
    assert not run.backward(0.0).any()


@every_loss
def test_backward_may_be_called_again_and_gives_the_same(layer):
    run = _run(Case(layer, (4, 5, 2))).forward()
    np.testing.assert_array_equal(run.backward(0.5), run.backward(0.5))


@every_loss
def test_without_propagate_down_nothing_is_written(layer):
    run = _run(Case(layer)).forward()
    run.bottom[0].diff[...] = 7
    run.backward(propagate_down=[False, False])
    assert (run.bottom[0].diff == 7).all()


@every_loss
def test_a_gradient_toward_labels_or_weights_is_an_error_that_says_so(layer):
    run = _run(Case(layer, weights="position")).forward()
    with pytest.raises(LayerError, match=rf"^{layer}: bottom\[1\] \(labels\) has no gradient"):
        run.backward(propagate_down=[True, True, False])
    with pytest.raises(LayerError, match=rf"^{layer}: bottom\[2\] \(weights\) has no gradient"):
        run.backward(propagate_down=[True, False, True])


@every_loss
def test_backward_after_a_forward_in_test_phase_gives_the_same_gradient(layer):
    case = Case(layer, (4, 5, 2), {"normalization": "VALID"}, "position")
    np.testing.assert_array_equal(_run(case, phase=TEST).forward().backward(), _run(case).forward().backward())


@every_loss
def test_backward_belongs_to_the_last_forward(layer):
    case = Case(layer, (4, 5, 2))
    run = _run(case).forward()
    run.backward()
    scores, labels = case.arrays(9)
    run.bottom[0].data[...], run.bottom[1].data[...] = scores, labels
    np.testing.assert_array_equal(run.forward().backward(), case.function(scores, labels)[1])


@every_loss
def test_buffers_are_kept_between_calls_and_follow_the_batch_size(layer):
    run = _run(Case(layer, (4, 5, 2))).forward()
    buffer = run.layer._gradient
    assert run.forward().layer._gradient is buffer
    smaller = Case(layer, (2, 5, 2))
    for blob, array in zip(run.bottom, smaller.arrays(3), strict=True):
        blob.reshape(*array.shape)
        blob.data[...] = array
    loss, gradient = smaller.function(*smaller.arrays(3))
    assert run.forward().top[0].data[0] == pytest.approx(loss, rel=1e-7)
    np.testing.assert_array_equal(run.backward(), gradient)


@pytest.mark.parametrize("layer", [layer for layer in LOSSES if len(LAYERS[layer].tops) > 1])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_the_second_top_has_the_probabilities_and_no_part_in_the_gradient(layer, phase):
    case = Case(layer, (3, 4, 2), {"ignore_label": 2})
    run = _run(case, tops=2, phase=phase).forward()
    scores = case.arrays()[0]
    expected = F.sigmoid(scores) if issubclass(case.layer_class, ElementwiseLoss) else F.softmax(scores)
    np.testing.assert_allclose(run.top[1].data, expected, rtol=1e-6)
    run.top[1].diff[...] = 5
    np.testing.assert_array_equal(run.backward(), case.function(*case.arrays(), ignore_label=2)[1])


def test_the_cross_entropy_of_probabilities_has_no_second_top():
    with pytest.raises(ShapeError, match="CrossEntropyLossLayer: there are 2 tops, but it wants 1: loss"):
        _run(Case("CrossEntropyLossLayer"), tops=2)


@every_loss
def test_too_few_or_too_many_bottoms_are_an_error(layer):
    scores, labels = Case(layer).arrays()
    with pytest.raises(ShapeError, match="there are 1 bottoms, but it wants 2 to 3: scores, labels, .weights."):
        Run(getattr(caffe_layers, layer), "", [scores])
    with pytest.raises(ShapeError, match="there are 4 bottoms"):
        Run(getattr(caffe_layers, layer), "", [scores, labels, labels, labels])


def test_a_loss_beyond_float32_stays_finite():
    run = Run(caffe_layers.SoftmaxLossLayer, "", [np.array([[3e38, -3e38]]), np.array([1])]).forward()
    assert run.top[0].data[0] == np.finfo(np.float32).max
    np.testing.assert_array_equal(run.backward(), [[1, -1]])


# --- activations ---


@every_activation
def test_activations_work_in_place_as_apart(layer):
    scores = np.random.RandomState(0).randn(4, 5, 3).astype(np.float32) * 5
    top_diff = np.random.RandomState(1).randn(4, 5, 3).astype(np.float32)
    apart = Run(getattr(caffe_layers, layer), "", [scores]).forward()
    np.testing.assert_array_equal(apart.top[0].data, LAYERS[layer].function(scores))
    in_place = Run(getattr(caffe_layers, layer), "", [scores])
    in_place.top = in_place.bottom
    in_place.forward()
    np.testing.assert_array_equal(in_place.top[0].data, apart.top[0].data)
    np.testing.assert_array_equal(in_place.backward(top_diff), apart.backward(top_diff))


@every_activation
def test_the_gradient_of_activations_is_that_of_finite_differences(layer):
    rng = np.random.RandomState(2)
    scores, top_diff = rng.randn(3, 4, 2), rng.randn(3, 4, 2)
    gradient = Run(getattr(caffe_layers, layer), "", [scores], dtype=np.float64).forward().backward(top_diff)
    for place in np.ndindex(*scores.shape):
        ahead, behind = scores.copy(), scores.copy()
        ahead[place] += 1e-5
        behind[place] -= 1e-5
        difference = ((LAYERS[layer].function(ahead) - LAYERS[layer].function(behind)) * top_diff).sum() / 2e-5
        assert gradient[place] == pytest.approx(difference, rel=1e-6, abs=1e-10)


@every_activation
def test_activations_write_no_diff_without_propagate_down(layer):
    run = Run(getattr(caffe_layers, layer), "", [np.ones((2, 3))]).forward()
    run.bottom[0].diff[...] = 7
    run.backward(propagate_down=[False])
    assert (run.bottom[0].diff == 7).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_sums_to_one_over_its_axis(axis):
    scores = np.random.RandomState(3).randn(3, 4, 5).astype(np.float32) * 20
    run = Run(caffe_layers.SoftmaxLayer, {"axis": axis}, [scores]).forward()
    np.testing.assert_allclose(run.top[0].data.sum(axis=axis), 1, rtol=1e-6)


# --- the stand-in for caffe.Layer ---


def test_without_caffe_the_layer_is_made_as_caffe_makes_it_and_has_blobs():
    layer = StandInLayer(None)
    blob = layer.blobs.add_blob(2, 3)
    assert layer.blobs[0] is blob and blob.data.shape == blob.diff.shape == (2, 3)
    assert layer.param_str == "" and layer.phase == TRAIN


def forget_caffe_afterwards(monkeypatch):
    """Whatever a test imports as ``caffe`` is gone for the next one."""
    monkeypatch.setitem(sys.modules, "caffe", None)  # so that it is restored
    del sys.modules["caffe"]


@pytest.mark.parametrize("broken", ["", "raise TypeError('descriptors cannot be created')", "Layer = int"])
def test_a_package_that_is_no_caffe_or_a_broken_one_leaves_the_stand_in(broken, tmp_path, monkeypatch):
    from caffe_layers import layer

    (tmp_path / "caffe.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    forget_caffe_afterwards(monkeypatch)
    assert layer._caffe_layer() is layer.StandInLayer


def test_a_real_caffe_gives_the_layer(tmp_path, monkeypatch):
    from caffe_layers import layer

    (tmp_path / "caffe.py").write_text("class Layer: pass\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget_caffe_afterwards(monkeypatch)
    found = layer._caffe_layer()
    assert found.__module__ == "caffe"


# --- numbers of a real Caffe ---


@pytest.mark.parametrize("name", ["4x5", "one_positive_each", "weight_2"])
def test_the_multi_label_layer_of_a_real_caffe_agrees(name, shared):
    golden = np.load(shared / "golden" / f"seed_multilabel_softmax_{name}.npz")
    run = Run(caffe_layers.SoftmaxLossLayer, "target: multi_label", [golden["in/score"], golden["in/label"]]).forward()
    assert run.top[0].data[0] == pytest.approx(golden["data/loss"].item(), rel=1e-5)
    # The layer that Caffe ran ignores the diff of its top, which is the loss_weight.
    np.testing.assert_allclose(run.backward(1.0), golden["diff/score"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(run.backward(2.0), 2 * golden["diff/score"], rtol=1e-5, atol=1e-7)


def test_blobs_of_float64_are_computed_in_float64():
    scores, labels = Case("SoftmaxLossLayer").arrays(0, np.float64)
    run = Run(caffe_layers.SoftmaxLossLayer, "", [scores, labels], dtype=np.float64).forward()
    assert run.top[0].data[0] == F.softmax_loss(scores, labels)[0]
    assert blob_of(scores, np.float64).data.dtype == run.backward().dtype


# --- what the bottoms hold ---


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_says_what_its_bottoms_hold_before_set_up_and_after(layer):
    known = {"class index", "0 or 1", "real", "distribution", "probabilities", None}
    assert {
        make_instance(LAYERS[layer], "", "TRAIN").holds(index) for index in range(len(LAYERS[layer].bottoms))
    } <= known


@pytest.mark.parametrize(
    ("layer", "params", "held"),
    [
        ("SoftmaxLossLayer", {}, [None, "class index", "real"]),
        ("SoftmaxLossLayer", {"target": "distribution"}, [None, "distribution", "real"]),
        ("CrossEntropyLossLayer", {"target": "multi_label"}, ["probabilities", "0 or 1", "real"]),
        ("SigmoidFocalLossLayer", {}, [None, "0 or 1", "real"]),
        ("SoftmaxLayer", {}, [None]),
    ],
)
def test_what_a_bottom_holds_follows_the_target(layer, params, held):
    bottoms = Case(layer, params=params).arrays() if layer in LOSSES else [np.zeros((2, 3))]
    run = Run(LAYERS[layer], params, bottoms)
    assert [run.layer.holds(index) for index in range(len(held))] == held
