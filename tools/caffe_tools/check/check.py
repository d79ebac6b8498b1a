"""Two runs of a net compared, blob by blob: layer by layer, and as the exported ONNX model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import onnxruntime

from caffe_tools.check import evidence
from caffe_tools.check.compare import ATOL, RTOL, CheckResult
from caffe_tools.check.comparison import Comparison, run_inside, session_giving
from caffe_tools.check.double_sums import with_double_sums
from caffe_tools.check.scratch import scratch_diffs
from caffe_tools.check.sides import Side, side_of
from caffe_tools.errors import NetError, few
from caffe_tools.export.export import Exported, ExportOptions, export
from caffe_tools.graph.session import make_session, run
from caffe_tools.net.keys import DATA, DIFF, IN, PARAM, PARAM_AFTER, PDIFF, RANDOM, TOP_DIFF, Arrays, split_key
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.results import Result, Results
from caffe_tools.net.standard_layer import StandardLayer

Progress = Callable[[str], None]
Peer = Callable[[Net, Arrays], Arrays]
"""Runs the same net elsewhere, on the data, diffs and learnable blobs that it was fed (``peers.py``)."""


@dataclass
class Run:
    """What one way of running a net computed, by the keys of an ``.npz``, and which layer computed it."""

    arrays: dict[str, np.ndarray]
    layers: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, array: np.ndarray, layer: str) -> None:
        self.arrays[key], self.layers[key] = array.copy(), layer


def check(
    net: Net,
    against: Arrays | Peer | None = None,
    against_name: str = "",
    rtol: float = RTOL,
    atol: float = ATOL,
    progress: Progress = lambda text: None,
) -> list[CheckResult]:
    """Run ``net`` (with the inputs, and the diffs of its outputs, that it holds) both ways, and compare every blob and
    every gradient. Where the whole runs differ, each layer is judged by itself.

    In TRAIN phase backward runs too. The result compares the exported model with the layers; with ``against``, arrays
    by the keys of an ``.npz`` or a peer that gives such, there are two: the layers and the exported model, each
    compared with those.

    Raises NetError where there is nothing to compare, and what ``Net`` and ``export`` raise.
    """
    progress("making the data")
    net.forward_data()
    net.reshape_behind_data()  # the graph is built for the shapes that this data has
    parameters = {name: blob.data.copy() for name, blob in net.learnable.items()} if callable(against) else {}
    progress("exporting")
    training = net.phase == "TRAIN" and net.runs_backward
    exported = export(net, ExportOptions(training=training, all_blobs=True, random_inputs=True))
    session = make_session(exported.model)  # before the run, in which BatchNorm changes its statistics
    stored = {name: blob.data.copy() for placed in net.placed for name, blob in placed.statistics.items()}
    progress("running layer by layer")
    layers, fed = run_layers(net, training, progress, data_is_made=True)
    if not layers.arrays:
        raise NetError("there is nothing to compare: the net computes no blob, it only has data")
    if callable(against):
        progress(f"running in {against_name}")
        against = against(net, fed | PARAM.keyed(parameters))
    progress("running in ONNX Runtime")
    if against is not None and training:
        _add_idle_diffs(net, layers, against)
        copies = [exported.name_of(DIFF.key(name)) for name in net.copies if DIFF.key(name) in against]
        if any(copies):
            session = session_giving(exported, [name for name in copies if name], make_session)
    onnx = run_exported(session, exported, fed, layers)
    empty = evidence.proves_nothing(layers.arrays)
    notes = layers.notes + _notes(net) + evidence.note(empty)
    results = Results(net)
    ours = side_of("layer by layer", net, results, layers.arrays, fed)
    ours.diffs |= {Result(copy, 1): net.blobs[copy].diff for copy in net.copies if training}
    inside = cache(partial(run_inside, net, results, exported, fed, make_session))
    comparison = Comparison(net, results, layers.layers, stored, ours, inside, rtol, atol)

    def compared(expected: Side, found: Side) -> CheckResult:
        rows, reasons = comparison.rows(expected, found)
        return CheckResult(net.name, net.phase, expected.name, found.name, rtol, atol, rows, notes, empty, reasons)

    theirs = Side("ONNX Runtime", {}, {}, onnx.arrays)
    if against is None:
        return [compared(ours, theirs)]
    notes += _notes_against(net, layers, against, against_name)
    reference = {key: against[key] for key in layers.arrays if key in against}  # in the order of the layers
    if not reference:
        kinds = ", ".join(kind.key("…") for kind in (DATA, DIFF, PDIFF, PARAM_AFTER))
        raise NetError(f"{against_name} holds no {kinds} of this net")
    peer = side_of(against_name, net, results, reference, fed)

    def compared_with_peer(found: Side) -> CheckResult:
        result = compared(peer, found)
        result.rows, lines = with_double_sums(net, results, peer, found, result.rows, rtol)
        result.reasons += lines
        return result

    return [compared_with_peer(ours), compared_with_peer(theirs)]


def run_layers(
    net: Net, training: bool, progress: Progress = lambda text: None, data_is_made: bool = False
) -> tuple[Run, dict[str, np.ndarray]]:
    """Forward and, where ``training``, backward, layer by layer; and what an exported model must be fed to match.

    ``data_is_made``: ``Net.forward_data`` has run the layers that make data.

    That is ``in/<blob>``, ``random/<layer>/<i>`` and, for a net without a loss, ``top_diff/<blob>``.
    """
    found = Run({}, {})
    fed: dict[str, np.ndarray] = {}
    stored = {name: blob.data.copy() for placed in net.placed for name, blob in placed.statistics.items()}
    for placed in net.placed:
        progress(f"forward {placed.name}")
        for bottom in _forward_layer(placed) if not (data_is_made and placed.makes_data) else ():
            found.notes.append(
                f"layer {placed.name!r} writes into its bottom {bottom!r}, which Caffe's layers never do"
            )
            found.layers[DATA.key(bottom)] = placed.name
        for top, blob in zip(placed.spec.tops, placed.tops, strict=True):
            found.layers[DATA.key(top)] = placed.name
            if not placed.bottoms:
                fed[IN.key(top)] = blob.data.copy()
        if isinstance(placed.layer, StandardLayer):
            fed |= RANDOM.keyed(placed.layer.random_values)
    # data that is fed agrees by itself
    computed = {top for placed in net.placed if placed.bottoms for top in placed.spec.tops} - set(net.copies)
    found.arrays = {DATA.key(name): blob.data.copy() for name, blob in net.blobs.items() if name in computed}
    if training:
        for placed in net.placed:
            for name, blob in placed.statistics.items():
                if not np.array_equal(blob.data, stored[name], equal_nan=True):
                    found.add(PARAM_AFTER.key(name), blob.data, placed.name)
        if not net.has_loss:
            fed |= {TOP_DIFF.key(name): net.blobs[name].diff.copy() for name in net.outputs}
        _run_backward(net, found, progress)
    return found, fed


def _forward_layer(placed: PlacedLayer) -> list[str]:
    """Run a layer forward; the bottoms that its Python code changed though they are none of its tops."""
    bottoms = dict(zip(placed.spec.bottoms, placed.bottoms, strict=True))
    watched = set(bottoms).difference(placed.spec.tops) if isinstance(placed.layer, PythonLayer) else set()
    before = {name: blob.data.copy() for name, blob in bottoms.items() if name in watched}
    placed.forward()
    return [name for name, data in before.items() if not np.array_equal(data, bottoms[name].data, equal_nan=True)]


def _run_backward(net: Net, found: Run, progress: Progress) -> None:
    """Add the diffs of the blobs that layers write, in the order in which they are complete, and of what learns."""
    net.clear_param_diffs()
    copies = net.copies
    for placed in reversed(net.placed):
        if not placed.runs_backward:
            continue
        progress(f"backward {placed.name}")
        placed.backward()
        for name, blob, is_written in zip(placed.spec.bottoms, placed.bottoms, placed.propagate_down, strict=True):
            if is_written and name not in copies:
                found.arrays.pop(DIFF.key(name), None)
                found.add(DIFF.key(name), blob.diff, placed.name)
    owners: set[int] = set()
    for placed in net.placed:
        for (name, blob), learns in zip(placed.learnable.items(), placed.learn, strict=True):
            if learns and blob.memory not in owners:
                owners.add(blob.memory)
                found.add(PDIFF.key(name), blob.diff, placed.name)


def _add_idle_diffs(net: Net, layers: Run, against: Arrays) -> None:
    """Add the diffs that our backward does not gather and a reference holds all the same: those at which backward
    starts, those of the tops of Splits that stand in no prototxt, and those of what does not learn (zeros). A blob that
    Caffe sends no gradient has zeros there too, which say nothing (a model may well give the gradient by a target), or
    what a layer computed there."""
    learnable, scratch = net.learnable, scratch_diffs(net)
    for key, reference in against.items():
        kind, name = split_key(key)
        if key in layers.arrays:
            continue
        if kind == DIFF and name in net.blobs and name not in scratch and np.any(reference):
            layers.arrays[key] = net.blobs[name].diff.copy()
        elif kind == PDIFF and name in learnable:
            layers.arrays[key] = learnable[name].diff.copy()


def run_exported(session: onnxruntime.InferenceSession, exported: Exported, fed: Arrays, layers: Run) -> Run:
    """The exported model in ONNX Runtime: of the arrays that ``layers`` has, those that the model gives."""
    names = {key: name for key in layers.arrays if (name := exported.name_of(key))}
    results = run(session, list(names.values()), exported.feeds(fed), "the exported model") if names else []
    found = dict(zip(names, results, strict=True))
    for key, expected in layers.arrays.items():
        kind, blob = split_key(key)
        if kind == DIFF and key not in found:  # it is fed, or no gradient reaches it
            found[key] = fed.get(TOP_DIFF.key(blob), np.zeros_like(expected))
    return Run(found, layers.layers)


def _notes(net: Net) -> list[str]:
    if net.phase != "TRAIN" or net.runs_backward:
        return []
    if not any(any(placed.loss_weights) for placed in net.placed):
        for spec in (placed.spec for placed in net.placed):
            if spec.type == "Python" and spec.tops and spec.tops[0] in net.outputs and len(spec.bottoms) > 1:
                return [
                    "no gradient was checked: no top has a loss_weight, and Caffe gives a Python layer none by itself;"
                    f" give layer {spec.name!r} loss_weight: 1"
                ]
    return [
        "no gradient was checked: no learnable blob lies under a loss; force_backward: true asks for the gradients all"
        " the same"
    ]


def _notes_against(net: Net, layers: Run, against: Arrays, name: str) -> list[str]:
    unknown = [key for key in against if key not in layers.arrays and _is_news(net, key, against[key])]
    missing = [key for key in layers.arrays if key not in against]
    notes = []
    if unknown:
        notes.append(f"not compared, since this run has no such value: {few(unknown)}")
    if missing:
        notes.append(f"not compared, since {name} has no such value: {few(missing)}")
    return [*notes, *getattr(against, "notes", ())]


def _is_news(net: Net, key: str, array: np.ndarray) -> bool:
    """Whether it could be compared: it is no blob that is fed, nor the diff of one that nobody sends a gradient."""
    kind, name = split_key(key)
    if kind == DATA:
        return name not in net.blobs
    if kind == PARAM_AFTER and name in net.learnable:
        return not np.array_equal(array, net.learnable[name].data, equal_nan=True)
    if kind == DIFF and name in net.blobs:
        return False  # no layer sends a gradient there: what it holds is zeros, or what a layer computed in it
    return kind in (PARAM_AFTER, DIFF, PDIFF) and bool(np.any(array))
