"""What makes the layers fast, and must not change what they compute: engines, threads, kept memory, one gradient."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import caffe_layers
from caffe_layers import ParameterError, blocks
from caffe_layers import engine as engine_module
from caffe_layers import functional as F
from layer_blobs import Run
from layer_cases import LOSSES, Case

pytestmark = pytest.mark.usefixtures("engine")

LAYERS = Path(caffe_layers.__file__).resolve().parents[1]
LARGE = (3000, 90)
"""More than one block."""


def test_the_engine_that_a_test_names_is_the_one_that_computes(engine):
    module = engine_module.compiled("caffe_layers.compiled.sigmoid", np.dtype(np.float32))
    assert (module is not None) == (engine == "numba")


@pytest.mark.parametrize("layer", LOSSES)
@pytest.mark.parametrize("shape", [LARGE, (3, 21, 5000)])
def test_every_number_of_threads_gives_the_same_and_a_repetition_the_same_bits(layer, shape, monkeypatch):
    case = Case(layer, shape, {"ignore_label": 2}, "position")
    arrays = case.arrays(1)
    results = {}
    for threads in ("1", "2", "2", "3"):
        monkeypatch.setenv("CAFFE_LAYERS_THREADS", threads)
        loss, gradient = case.function(*arrays, **case.params)
        if threads in results:
            assert loss == results[threads][0]
            np.testing.assert_array_equal(gradient, results[threads][1])
        results[threads] = loss, gradient
    for loss, gradient in results.values():
        assert loss == pytest.approx(results["1"][0], rel=1e-6)
        np.testing.assert_allclose(gradient, results["1"][1], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("layer", LOSSES)
@pytest.mark.parametrize("shape", [LARGE, (2, 21, 6000)])
def test_large_scores_of_float32_agree_with_float64(layer, shape):
    case = Case(layer, shape, {"normalization": "VALID", "ignore_label": 2}, "position")
    loss, gradient = case.function(*case.arrays(2), **case.params)
    exact, exact_gradient = case.function(*(array.astype(np.float64) for array in case.arrays(2)), **case.params)
    assert loss == pytest.approx(exact, rel=1e-6)
    assert np.abs(gradient - exact_gradient).max() <= 2e-6 * np.abs(exact_gradient).max()


@pytest.mark.parametrize("layer", LOSSES)
def test_a_nan_in_a_large_array_stays_where_it_is(layer):
    case = Case(layer, LARGE)
    scores, labels = case.arrays(3)
    scores[2500, 7] = np.nan
    if labels.ndim == 1:
        labels[2500] = 7
    loss, gradient = case.function(scores, labels)
    assert np.isnan(loss) and np.isnan(gradient[2500, 7])
    assert np.isfinite(np.delete(gradient, 2500, axis=0)).all()


def test_an_error_in_one_of_the_threads_is_raised_with_its_place(monkeypatch):
    monkeypatch.setenv("CAFFE_LAYERS_THREADS", "2")
    scores, labels = Case("SoftmaxLossLayer", LARGE).arrays(4)
    labels[2900] = 90
    with pytest.raises(caffe_layers.LabelError, match=r"^softmax_loss: .* the label at \(2900,\) is 90"):
        F.softmax_loss(scores, labels)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("CAFFE_LAYERS_THREADS", text)
    with pytest.raises(ParameterError, match=f"CAFFE_LAYERS_THREADS is '{text}', but must be an integer, 1 or more"):
        blocks.threads()


def test_an_engine_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("CAFFE_LAYERS_ENGINE", "gpu")
    with pytest.raises(ParameterError, match="CAFFE_LAYERS_ENGINE is 'gpu', but must be numpy or numba"):
        F.softmax_loss(np.zeros((1, 3), np.float32), [0])


def test_the_engine_that_is_chosen_is_the_one_that_computes(engine):
    code = (
        f"import sys; sys.path.insert(0, {str(LAYERS)!r})\n"
        "import numpy, caffe_layers.functional as f\n"
        "f.softmax_loss(numpy.zeros((2, 3), numpy.float32), [0, 1])\n"
        "print('numba' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == str(engine == "numba"), result.stderr


def test_a_terminal_is_told_once_that_a_kernel_is_compiled_and_nothing_else_is(monkeypatch, capsys):
    class Dispatcher:
        def __init__(self, module):
            self.py_func = type("Function", (), {"__module__": module})

    notice = engine_module._notice(object)
    modules = ("caffe_layers.compiled.float32", "mine")
    ours, other = (SimpleNamespace(data={"dispatcher": Dispatcher(module)}) for module in modules)
    notice.on_start(ours)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    notice.on_start(other)
    assert capsys.readouterr().err == ""
    notice.on_start(ours)
    notice.on_start(ours)
    assert capsys.readouterr().err == "caffe_layers: compiling for this machine, once, for a few seconds\n"


@pytest.mark.parametrize("layer", LOSSES)
def test_a_function_gives_its_memory_back_at_once(layer, monkeypatch):
    monkeypatch.setenv("CAFFE_LAYERS_THREADS", "2")
    case = Case(layer, LARGE)
    arrays = case.arrays(5)
    case.function(*arrays, **case.params)
    gc.disable()  # nothing may wait for it
    tracemalloc.start()
    try:
        for _ in range(3):
            case.function(*arrays, **case.params)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 100_000


@pytest.mark.parametrize("layer", LOSSES)
def test_a_layer_keeps_its_memory_from_call_to_call(layer, monkeypatch):
    monkeypatch.setenv("CAFFE_LAYERS_THREADS", "1")
    case = Case(layer, LARGE)
    run = Run(case.layer_class, case.params, case.arrays()).forward()
    run.backward()
    size = run.bottom[0].data.nbytes
    tracemalloc.start()
    run.forward()
    run.layer.backward(run.top, [True, False], run.bottom)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * size


def test_forward_computes_the_gradient_along_in_training_only(monkeypatch):
    case = Case("SoftmaxLossLayer")
    calls = []
    evaluate = caffe_layers.SoftmaxLossLayer.evaluate

    def counting(cls, params, arrays, workspace):
        calls.append(arrays.gradient is not None)
        return evaluate(params, arrays, workspace)

    monkeypatch.setattr(caffe_layers.SoftmaxLossLayer, "evaluate", classmethod(counting))
    Run(case.layer_class, {}, case.arrays(), phase=0).forward().backward()
    assert calls == [True]
    Run(case.layer_class, {}, case.arrays(), phase=1).forward().backward()
    assert calls == [True, False, True]
