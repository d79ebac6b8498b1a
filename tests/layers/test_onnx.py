"""The ONNX expression of every layer: the numbers of the layer, forward and gradient, for any batch."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx.reference import ReferenceEvaluator

import caffe_layers
from caffe_tools.gradient import gradients
from caffe_tools.graph.builder import Builder
from layer_blobs import Run
from layer_cases import ACTIVATIONS, CASES, LAYERS, LOSSES, Case, cases, declared

every_case = pytest.mark.parametrize("case", CASES, ids=str)
TOP_DIFF = 0.37


def export(layer, bottoms, batch="batch", dtype=np.float32):
    """The layer's graph: inputs b0, b1 ..., outputs t0, t1 ..., then d0, the gradient of b0 for the top diff 0.37."""
    op = Builder(float_type=dtype)
    values = []
    for index, array in enumerate(bottoms):
        dims = (batch, *array.shape[1:]) if batch and array.ndim else array.shape
        values.append(op.input(f"b{index}", dims))
    tops = layer.onnx(op, *values)
    tops = tops if isinstance(tops, tuple) else (tops,)
    loss_diff = op.constant([TOP_DIFF])
    if not isinstance(layer, caffe_layers.loss.LossLayer):
        loss_diff = op.input("top_diff", op.shape(tops[0]))
    (bottom_diff,) = gradients(op, {tops[0]: loss_diff}, values[:1])
    for index, top in enumerate(tops):
        op.output(top, f"t{index}")
    op.output(bottom_diff, "d0")
    model = ir.to_proto(ir.Model(op.graph, ir_version=9))
    onnx.checker.check_model(model, full_check=True)
    return model


def run_in_onnxruntime(model, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)


def run_in_reference(model, inputs):
    return ReferenceEvaluator(model).run(None, inputs)


def assert_close(actual, expected):
    """Within 1e-5 of the blob's largest value."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max(initial=0) <= 1e-5 * np.abs(expected).max(initial=1e-30)


def check(case, run, tops=1, seed=0, exported_from=None):
    bottoms = case.arrays(seed)
    layer = Run(case.layer_class, case.params, bottoms, tops=tops).forward()
    model = export(layer.layer, (exported_from or case).arrays())
    *actual, actual_gradient = run(model, {f"b{index}": array for index, array in enumerate(bottoms)})
    for value, blob in zip(actual, layer.top, strict=True):
        assert_close(value, blob.data)
    assert_close(actual_gradient, layer.backward(TOP_DIFF))


@every_case
def test_onnx_runtime_gives_the_loss_and_the_gradient_of_the_layer(case):
    check(case, run_in_onnxruntime)


@every_case
@pytest.mark.filterwarnings("ignore:::onnx.reference.*")
def test_the_reference_evaluator_gives_the_loss_and_the_gradient_of_the_layer(case):
    check(case, run_in_reference)


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
@pytest.mark.parametrize(
    ("layer", "target"),
    [("SoftmaxFocalLossLayer", "index")]
    + [("SoftmaxLossLayer", target) for target in ("index", "distribution", "multi_label")],
)
def test_the_loss_of_positions_that_are_almost_right_keeps_its_digits(layer, shape, target):
    scores, labels = Case(layer, shape).arrays()
    one_hot = (np.arange(4).reshape(4, *(1,) * (len(shape) - 2)) == labels[:, None]).astype(np.float32)
    scores += 20 * one_hot
    labels, params = (labels, {}) if target == "index" else (one_hot, {"target": target})
    run = Run(getattr(caffe_layers, layer), params, (scores, labels)).forward()
    loss, gradient = run_in_onnxruntime(export(run.layer, (scores, labels)), {"b0": scores, "b1": labels})
    assert loss < 1e-3
    assert_close(loss, run.top[0].data)
    assert_close(gradient, run.backward(TOP_DIFF))


@pytest.mark.parametrize("layer", LOSSES)
def test_any_configuration_gives_the_numbers_of_the_layer(layer):
    @settings(max_examples=40)
    @given(cases(layer).filter(lambda case: len(case.shape) > 1 and case.params["axis"] % len(case.shape)))
    def holds(case):
        check(case, run_in_onnxruntime)

    holds()


@pytest.mark.parametrize("layer", LOSSES)
@pytest.mark.parametrize("shape", [(7, 3), (1, 3, 2), (0, 3, 2)])
def test_a_graph_with_a_symbolic_batch_serves_every_batch_size(layer, shape):
    params = {"normalization": "FULL", "ignore_label": 1}
    exported = Case(layer, (4, *shape[1:]), params, "position")
    check(Case(layer, shape, params, "position"), run_in_onnxruntime, exported_from=exported)
    for mode in ("BATCH_SIZE", "POSITIVES", "WEIGHT", "VALID"):
        mode = {"normalization": mode}
        check(Case(layer, shape, mode), run_in_onnxruntime, exported_from=Case(layer, (4, *shape[1:]), mode))


@pytest.mark.parametrize("layer", [layer for layer in LOSSES if len(LAYERS[layer].tops) > 1])
def test_the_second_top_has_the_probabilities(layer):
    check(Case(layer, (3, 4, 2), {"ignore_label": 2}), run_in_onnxruntime, tops=2)


@pytest.mark.parametrize("layer", LOSSES)
def test_scores_as_large_as_float32_give_no_nan_and_no_infinity(layer):
    largest = np.finfo(np.float32).max
    for target in declared(layer, "target").choices or ("index",):
        case = Case(layer, (4, 3), {"target": target} if declared(layer, "target").choices else {})
        _, labels = case.arrays()
        scores = np.array([[1, -1, 1], [-1, 1, -1], [1, 1, 1], [-1, -1, -1]], np.float32) * largest
        model = export(Run(case.layer_class, case.params, [scores, labels]).layer, [scores, labels])
        loss, gradient = run_in_onnxruntime(model, {"b0": scores, "b1": labels})
        assert np.isfinite(loss).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("layer", ACTIVATIONS)
@pytest.mark.parametrize("run", [run_in_onnxruntime, run_in_reference])
def test_activations_give_the_numbers_of_the_layer(layer, run):
    rng = np.random.RandomState(0)
    scores, top_diff = rng.randn(2, 3, 4, 5).astype(np.float32), rng.randn(2, 3, 4, 5).astype(np.float32)
    here = Run(LAYERS[layer], "", [scores]).forward()
    top, gradient = run(export(here.layer, [scores]), {"b0": scores, "top_diff": top_diff})
    assert_close(top, here.top[0].data)
    assert_close(gradient, here.backward(top_diff))


@pytest.mark.parametrize("layer", LOSSES)
def test_a_float64_graph_agrees_with_the_functional_api_in_float64(layer):
    case = Case(
        layer, (4, 3, 2), {"ignore_label": 1, "normalization": "WEIGHT", "class_weight": [1, 2, 0.3]}, "position"
    )
    bottoms = case.arrays(0, np.float64)
    model = export(Run(case.layer_class, case.params, bottoms).layer, bottoms, dtype=np.float64)
    loss, gradient = run_in_reference(model, {f"b{index}": array for index, array in enumerate(bottoms)})
    expected, expected_gradient = case.function(*bottoms, **case.params)
    assert loss.dtype == np.float64 and loss[0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, TOP_DIFF * expected_gradient, rtol=1e-10, atol=1e-15)


def test_an_axis_of_unknown_size_cannot_hold_the_channels():
    layer = Run(caffe_layers.SoftmaxLossLayer, {"axis": 0}, [np.zeros((3, 4)), np.zeros(4)]).layer
    with pytest.raises(caffe_layers.ShapeError, match="cannot be exported with axis 0"):
        export(layer, [np.zeros((3, 4)), np.zeros(4)])
