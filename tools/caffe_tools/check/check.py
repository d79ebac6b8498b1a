"""Two runs of a net compared, blob by blob: layer by layer, and as the exported ONNX model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from caffe_tools.check.compare import ATOL, RTOL, CheckResult, compare
from caffe_tools.errors import NetError
from caffe_tools.export.export import Exported, ExportOptions, export
from caffe_tools.graph.session import make_session, run
from caffe_tools.net.backward_need import has_loss
from caffe_tools.net.blob import Blob
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.standard_layer import StandardLayer

COMPARED = ("data/", "diff/", "pdiff/", "param_after/")
"""The keys of an ``.npz`` that begin so are compared."""

Progress = Callable[[str], None]
Arrays = Mapping[str, np.ndarray]
Peer = Callable[[Net, Arrays, Arrays], Arrays]
"""Runs the same net elsewhere, on the data that it was fed and its learnable blobs (``peers.py``)."""


@dataclass
class Run:
    """What one way of running a net computed, by the keys of an ``.npz``, and which layer computed it."""

    arrays: dict[str, np.ndarray]
    layers: dict[str, str]
    notes: list[str] = field(default_factory=list)


def check(
    net: Net,
    against: Arrays | Peer | None = None,
    against_name: str = "",
    rtol: float = RTOL,
    atol: float = ATOL,
    progress: Progress = lambda text: None,
) -> list[CheckResult]:
    """Run ``net`` (with the inputs, and the diffs of its outputs, that it holds) both ways, and compare every blob and
    every gradient.

    In TRAIN phase backward runs too. The result compares the exported model with the layers; with ``against``, arrays
    by the keys of an ``.npz`` or a peer that gives such, there are two: the layers and the exported model, each
    compared with those.

    Raises NetError where there is nothing to compare, and what ``Net`` and ``export`` raise.
    """
    parameters = {}
    if callable(against):
        parameters = {f"param/{n}/{i}": b.data.copy() for n, all_ in net.params.items() for i, b in enumerate(all_)}
    progress("exporting")
    training = net.phase == "TRAIN" and any(net.backward_need.layers)
    exported = export(net, ExportOptions(training=training, all_blobs=True, random_inputs=True))
    session = make_session(exported.model)  # before the run, in which BatchNorm changes its statistics
    progress("running layer by layer")
    layers, fed = run_layers(net, training, progress)
    if not layers.arrays:
        raise NetError("there is nothing to compare: the net computes no blob, it only has data")
    if callable(against):
        progress(f"running in {against_name}")
        against = against(net, fed, parameters)
    progress("running in ONNX Runtime")
    if against is not None and training:
        _add_idle_diffs(net, layers, against)
    onnx = run_exported(session, exported, fed, layers)
    notes = layers.notes + _notes(net)

    def compared(reference: str, expected: Mapping[str, np.ndarray], name: str, found: Run) -> CheckResult:
        rows = compare(expected, found.arrays, layers.layers, rtol, atol)
        return CheckResult(net.name, net.phase, reference, name, rtol, atol, rows, notes)

    if against is None:
        return [compared("layer by layer", layers.arrays, "ONNX Runtime", onnx)]
    notes += _notes_against(net, layers, against, against_name)
    reference = {key: against[key] for key in layers.arrays if key in against}  # in the order of the layers
    if not reference:
        raise NetError(f"{against_name} holds no {', '.join(f'{kind}…' for kind in COMPARED)} of this net")
    return [
        compared(against_name, reference, "layer by layer", layers),
        compared(against_name, reference, "ONNX Runtime", onnx),
    ]


def run_layers(net: Net, training: bool, progress: Progress = lambda text: None) -> tuple[Run, dict[str, np.ndarray]]:
    """Forward and, where ``training``, backward, layer by layer; and what an exported model must be fed to match.

    That is by ``<blob>``, ``<layer>/random0``, and, for a net without a loss, ``<output>.diff``.
    """
    fed: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    notes: list[str] = []
    stored = {key: blob.data.copy() for key, blob in _stored_blobs(net).items()}
    for index, spec in enumerate(net.spec.layers):
        progress(f"forward {spec.name}")
        for bottom in _forward_layer(net, index):
            notes.append(f"layer {spec.name!r} writes into its bottom {bottom!r}, which Caffe's layers never do")
            names[f"data/{bottom}"] = spec.name
        if not spec.bottoms:
            fed |= {top: net.blobs[top].data.copy() for top in spec.tops}
        layer = net.layers[index]
        if isinstance(layer, StandardLayer):
            fed |= {f"{spec.name}/random{i}": values for i, values in enumerate(layer.random_values)}
        for top in spec.tops:
            names[f"data/{top}"] = spec.name
    splits = _split_tops(net)
    # data that is fed agrees by itself
    arrays = {
        f"data/{name}": net.blobs[name].data.copy()
        for name in _in_order(net)
        if name not in splits and not _is_only_fed(net, name)
    }
    if training:
        for (layer, i), blob in _stored_blobs(net).items():
            if not np.array_equal(blob.data, stored[layer, i], equal_nan=True):
                arrays[f"param_after/{layer}/{i}"] = blob.data.copy()
                names[f"param_after/{layer}/{i}"] = layer
        if not has_loss(net):
            fed |= {f"{name}.diff": net.blobs[name].diff.copy() for name in net.outputs}
        arrays |= _run_backward(net, names, splits, progress)
    return Run(arrays, names, notes), fed


def _forward_layer(net: Net, index: int) -> list[str]:
    """Run a layer forward; the bottoms that its Python code changed though they are none of its tops."""
    spec = net.spec.layers[index]
    read_only = [name for name in dict.fromkeys(spec.bottoms) if name not in spec.tops]
    before = {name: net.blobs[name].data.copy() for name in read_only if isinstance(net.layers[index], PythonLayer)}
    net._forward(index, index)
    return [name for name, data in before.items() if not np.array_equal(data, net.blobs[name].data, equal_nan=True)]


def _stored_blobs(net: Net) -> dict[tuple[str, int], Blob]:
    """The blobs that no gradient changes, but a forward pass may (BatchNorm's statistics)."""
    return {
        (layer.spec.name, i): blob for layer in net.layers for i, blob in enumerate(layer.blobs) if not layer.learns(i)
    }


def _split_tops(net: Net) -> set[str]:
    return {top for spec in net.spec.layers if spec.is_inserted for top in spec.tops}


def _in_order(net: Net) -> list[str]:
    return list(dict.fromkeys(top for spec in net.spec.layers for top in spec.tops))


def _is_only_fed(net: Net, name: str) -> bool:
    return all(not spec.bottoms for spec in net.spec.layers if name in spec.tops)


def _run_backward(net: Net, names: dict[str, str], splits: set[str], progress: Progress) -> dict[str, np.ndarray]:
    net.clear_param_diffs()
    diffs: dict[str, np.ndarray] = {}
    for index in reversed(range(len(net.layers))):
        spec = net.spec.layers[index]
        if not net.backward_need.layers[index]:
            continue
        progress(f"backward {spec.name}")
        net._backward(index, index)
        for position, bottom in enumerate(spec.bottoms):
            if net.backward_need.bottoms[index][position] and bottom not in splits:
                diffs.pop(f"diff/{bottom}", None)
                diffs[f"diff/{bottom}"] = net.blobs[bottom].diff.copy()
                names[f"diff/{bottom}"] = spec.name
    owners: set[int] = set()
    for index, (spec, layer) in enumerate(zip(net.spec.layers, net.layers, strict=True)):
        for i, blob in enumerate(layer.blobs):
            if net.backward_need.learn[index][i] and id(blob) not in owners:
                owners.add(id(blob))
                diffs[f"pdiff/{spec.name}/{i}"] = blob.diff.copy()
                names[f"pdiff/{spec.name}/{i}"] = spec.name
    return diffs


def _add_idle_diffs(net: Net, layers: Run, against: Mapping[str, np.ndarray]) -> None:
    """Add the diffs that backward does not write and a reference holds all the same: those of losses (their
    loss_weight), and of what does not learn (zeros). A blob that Caffe sends no gradient has zeros there too, which
    say nothing: a model may well give the gradient by a target."""
    for key, reference in against.items():
        kind, _, name = key.partition("/")
        if key in layers.arrays:
            continue
        if kind == "diff" and name in net.blobs and np.any(reference):
            layers.arrays[key] = net.blobs[name].diff.copy()
        elif kind == "pdiff":
            layer, _, index = name.rpartition("/")
            blobs = net.params.get(layer, [])
            if index.isdigit() and int(index) < len(blobs):
                layers.arrays[key] = blobs[int(index)].diff.copy()


def run_exported(
    session: onnxruntime.InferenceSession, exported: Exported, fed: Mapping[str, np.ndarray], layers: Run
) -> Run:
    """The exported model in ONNX Runtime: of the arrays that ``layers`` has, those that the model gives."""
    feeds = model_feeds(exported, fed)
    names = [exported.outputs[key] for key in layers.arrays if key in exported.outputs]
    results = dict(zip(names, run(session, names, feeds, "the exported model"), strict=True)) if names else {}
    arrays = {}
    for key, expected in layers.arrays.items():
        kind, _, blob = key.partition("/")
        if key in exported.outputs:
            arrays[key] = results[exported.outputs[key]]
        elif kind == "diff":
            arrays[key] = fed.get(f"{blob}.diff", np.zeros_like(expected))  # it is fed, or no gradient reaches it
    return Run(arrays, layers.layers)


def model_feeds(exported: Exported, fed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ``run_layers`` says the model must be fed, by the names of the model's inputs."""
    wanted = {value.name for value in exported.model.graph.input}
    feeds = {}
    for key, name in exported.inputs.items():
        kind, _, of = key.partition("/")
        if name in wanted:
            feeds[name] = fed[{"in": of, "random": f"{of}/random0", "top_diff": f"{of}.diff"}[kind]]
    return feeds


def _notes(net: Net) -> list[str]:
    if net.phase != "TRAIN" or any(net.backward_need.layers):
        return []
    if not any(any(weights) for weights in net.loss_weights):
        for spec in net.spec.layers:
            if spec.type == "Python" and spec.tops and spec.tops[0] in net.outputs and len(spec.bottoms) > 1:
                return [
                    "no gradient was checked: no top has a loss_weight, and Caffe gives a Python layer none by itself;"
                    f" give layer {spec.name!r} loss_weight: 1"
                ]
    return [
        "no gradient was checked: no learnable blob lies under a loss; force_backward: true asks for the gradients all"
        " the same"
    ]


def _notes_against(net: Net, layers: Run, against: Mapping[str, np.ndarray], name: str) -> list[str]:
    others = {key: array for key, array in against.items() if key.startswith(COMPARED) and key not in layers.arrays}
    unknown = [key for key, array in others.items() if not _is_idle(net, key, array)]
    missing = [key for key in layers.arrays if key not in against]
    notes = []
    if unknown:
        notes.append(f"not compared, since this run has no such value: {_some(unknown)}")
    if missing:
        notes.append(f"not compared, since {name} has no such value: {_some(missing)}")
    return notes


def _is_idle(net: Net, key: str, array: np.ndarray) -> bool:
    """Whether there is nothing to compare: the blob is fed, or nobody sends it a gradient."""
    kind, _, name = key.partition("/")
    return (kind == "data" and name in net.blobs) or (kind in ("diff", "pdiff") and not np.any(array))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
