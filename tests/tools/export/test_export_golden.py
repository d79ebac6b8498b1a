"""Exported training graphs against the numbers of a real Caffe, in ONNX Runtime and in onnx's reference evaluator, and
with another batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import golden
from caffe_tools.check.check import check, run_exported, run_layers
from caffe_tools.check.compare import compare
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.graph.session import make_session
from caffe_tools.net.draw import draw_inputs
from caffe_tools.net.inputs import feed
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.source_layer import SourceLayer
from exported_model import outputs_of

ROOT = Path(__file__).resolve().parents[3]

PLUG_INS = "Python"


def fed_net(case):
    arrays = case.arrays()
    net = case.net()
    draw_inputs(net, feed(net, arrays, case.name))
    return net, arrays


def disagreements(rows):
    return {row.key: row.relative for row in rows if not row.agrees}


def keys_of(rows, kind):
    return {row.key for row in rows if row.key.startswith(kind)}


@pytest.mark.parametrize("case", golden.parameters("net"))
def test_an_exported_net_gives_the_numbers_of_a_real_caffe(case):
    net, arrays = fed_net(case)
    layer_by_layer, onnx_runtime = check(net, arrays, "Caffe", rtol=1e-4)
    assert disagreements(onnx_runtime.rows) == {}
    computed = {key for key in arrays if key.startswith("data/") and f"in/{key[5:]}" not in arrays}
    assert computed <= keys_of(onnx_runtime.rows, "data/")
    if net.phase == "TRAIN":
        assert {key for key in arrays if key.startswith("pdiff/")} == keys_of(onnx_runtime.rows, "pdiff/")
        sent = {key for key, array in arrays.items() if key.startswith("diff/") and array.any()}
        fed = {f"diff/{key.removeprefix('top_diff/')}" for key in arrays if key.startswith("top_diff/")}
        assert sent - fed <= keys_of(onnx_runtime.rows, "diff/")
        assert {key for key in arrays if key.startswith("param_after/")} == keys_of(onnx_runtime.rows, "param_after/")


@pytest.mark.parametrize("case", golden.parameters("loss"))
def test_an_exported_loss_gives_the_numbers_of_a_real_caffe(case):
    if PLUG_INS in case.layers:
        pytest.skip("its module is not at hand")
    net, arrays = fed_net(case)
    _, onnx_runtime = check(net, arrays, "Caffe", rtol=1e-5)
    assert disagreements(onnx_runtime.rows) == {}
    computed = {key for key in arrays if key.startswith("data/") and f"in/{key[5:]}" not in arrays}
    assert computed <= keys_of(onnx_runtime.rows, "data/")


@pytest.mark.parametrize("case", golden.parameters("loss"))
def test_the_reference_evaluator_gives_an_exported_loss_the_same_numbers(case):
    if PLUG_INS in case.layers:
        pytest.skip("its module is not at hand")
    net, _ = fed_net(case)
    training = net.phase == "TRAIN"
    exported = export(net, ExportOptions(training=training, input_gradients=training, dynamic_batch=is_batched(case)))
    assert {entry.domain for entry in exported.model.opset_import} == {""}
    onnx.checker.check_model(exported.model, full_check=True)
    feeds = exported.feeds(run_layers(net, training)[1])
    names = outputs_of(exported)
    expected = make_session(exported.model).run(names, feeds)
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(exported.model).run(names, feeds)
    for name, ours, theirs in zip(names, expected, found, strict=True):
        assert golden.relative_difference(np.asarray(theirs), ours) <= 1e-5, name


def is_batched(case):
    """Whether the first axis of the case's blobs is one of items, and not that of the classes."""
    return "axis0" not in case.name


# Another batch size --------------------------------------------------------------------------------------------------


def check_with_another_batch(make, batch=3):
    """The export of one net with its batch open, against a net of ``batch`` items."""
    net = make()
    training = net.phase == "TRAIN" and net.runs_backward
    options = ExportOptions(training=training, all_blobs=True, random_inputs=True, dynamic_batch=True)
    exported = export(net, options)
    other = make()
    reshape_batch(other, batch)
    draw_inputs(other, ())
    for name, blobs in net.params.items():
        for mine, theirs in zip(other.params[name], blobs, strict=True):
            mine.data[...] = theirs.data
    layers, fed = run_layers(other, training)
    found = run_exported(make_session(exported.model), exported, fed, layers)
    rows = compare(layers.arrays, found.arrays, layers.layers, 1e-5, 0)
    assert disagreements(rows) == {}
    assert any(row.shape and row.shape[0] == batch for row in rows if row.key.startswith("data/"))


def reshape_batch(net: Net, batch: int) -> None:
    sources = [(layer.spec, layer) for layer in net.layers if not layer.spec.bottoms]
    old = net.blobs[sources[0][0].tops[0]].shape[0]
    for spec, layer in sources:
        if isinstance(layer, PythonLayer):
            layer.instance.params["batch_size"] = batch
        elif isinstance(layer, SourceLayer):
            for top in spec.tops:
                shape = net.blobs[top].shape
                if shape and shape[0] == old:
                    net.blobs[top].reshape(batch, *shape[1:])
    net.reshape()


@pytest.mark.parametrize("case", golden.parameters("net"))
def test_an_exported_net_with_an_open_batch_takes_another_batch_size(case):
    check_with_another_batch(case.net)


EXAMPLES = [path for path in sorted((ROOT / "prototxt_examples").glob("*.prototxt")) if "solver" not in path.name]


@pytest.mark.usefixtures("project_root")
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_exported_example_with_an_open_batch_takes_another_batch_size(example, phase):
    check_with_another_batch(lambda: Net(example, phase))
