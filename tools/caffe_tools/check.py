"""Two runs of a net compared, blob by blob: layer by layer, and as the exported ONNX model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from caffe_tools.export import Exported, ExportOptions, export
from caffe_tools.net import Net
from caffe_tools.session import make_session, run
from caffe_tools.standard_layer import StandardLayer

RTOL, ATOL = 1e-4, 0.0
"""A blob agrees where every difference is at most RTOL · its largest value + ATOL."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """How far one array of a run is from the reference's."""

    key: str
    layer: str
    shape: tuple[int, ...]
    largest: float
    absolute: float
    relative: float
    where: tuple[int, ...]
    agrees: bool
    note: str = ""


@dataclass
class CheckResult:
    """The comparison of ``run`` with ``reference``. The rows stand in the order in which the values are computed."""

    net: str
    phase: str
    reference: str
    run: str
    rtol: float
    atol: float
    rows: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows)

    @property
    def first_wrong(self) -> Difference | None:
        return next((row for row in self.rows if not row.agrees), None)

    def as_json(self) -> dict:
        return {**asdict(self), "agrees": self.agrees, "first_wrong": asdict(w) if (w := self.first_wrong) else None}


@dataclass
class Run:
    """What one way of running a net computed, by the keys of an ``.npz``, and which layer computed it."""

    arrays: dict[str, np.ndarray]
    layers: dict[str, str]


def check(
    net: Net,
    against: Mapping[str, np.ndarray] | None = None,
    against_name: str = "",
    rtol: float = RTOL,
    atol: float = ATOL,
    progress: Progress = lambda text: None,
) -> list[CheckResult]:
    """Run ``net`` (with the inputs that it holds) both ways, and compare every blob and every gradient.

    In TRAIN phase backward runs too. The result compares the exported model with the layers; with ``against``, arrays
    by the keys of an ``.npz``, there are two: the layers and the exported model, each compared with those.
    """
    progress("exporting")
    training = net.phase == "TRAIN" and any(net.backward_need.layers)
    # before the run, in which BatchNorm changes its statistics
    exported = export(net, ExportOptions(training=training, all_blobs=True, random_inputs=True))
    progress("running layer by layer")
    layers, fed = run_layers(net, training, progress)
    progress("running in ONNX Runtime")
    onnx = run_exported(net, exported, fed, layers)
    notes = _notes(net)

    def compared(reference: str, expected: Mapping[str, np.ndarray], name: str, found: Run) -> CheckResult:
        rows = compare(expected, found.arrays, layers, rtol, atol)
        return CheckResult(net.name, net.phase, reference, name, rtol, atol, rows, notes)

    if against is None:
        return [compared("layer by layer", layers.arrays, "ONNX Runtime", onnx)]
    return [
        compared(against_name, against, "layer by layer", layers),
        compared(against_name, against, "ONNX Runtime", onnx),
    ]


def run_layers(net: Net, training: bool, progress: Progress = lambda text: None) -> tuple[Run, dict[str, np.ndarray]]:
    """Forward and, where ``training``, backward, layer by layer; and what an exported model must be fed to match."""
    fed: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for index, spec in enumerate(net.spec.layers):
        progress(f"forward {spec.name}")
        net._forward(index, index)
        if not spec.bottoms:
            fed |= {top: net.blobs[top].data.copy() for top in spec.tops}
        layer = net.layers[index]
        if isinstance(layer, StandardLayer):
            fed |= {f"{spec.name}/random{i}": values for i, values in enumerate(layer.random_values)}
        for top in spec.tops:
            names[f"data/{top}"] = spec.name
    splits = {top for spec in net.spec.layers if spec.type == "Split" for top in spec.tops}
    # data that is fed agrees by itself
    arrays = {
        f"data/{name}": net.blobs[name].data.copy()
        for name in _in_order(net)
        if name not in splits and not _is_only_fed(net, name)
    }
    for spec, layer in zip(net.spec.layers, net.layers, strict=True):
        for i, blob in enumerate(layer.blobs):
            if isinstance(layer, StandardLayer) and not layer.learns(i) and training:
                arrays[f"param_after/{spec.name}/{i}"] = blob.data.copy()
    if training:
        _draw_top_diffs(net, fed)
        arrays |= _run_backward(net, names, splits, progress)
    return Run(arrays, names), fed


def _in_order(net: Net) -> list[str]:
    return list(dict.fromkeys(top for spec in net.spec.layers for top in spec.tops))


def _is_only_fed(net: Net, name: str) -> bool:
    return all(not spec.bottoms for spec in net.spec.layers if name in spec.tops)


def _draw_top_diffs(net: Net, fed: dict[str, np.ndarray]) -> None:
    """A net without a loss starts backward from random diffs of its outputs."""
    if any(layer.is_loss or spec.loss_weights for layer, spec in zip(net.layers, net.spec.layers, strict=True)):
        return
    random = np.random.default_rng(1)
    for name in net.outputs:
        blob = net.blobs[name]
        blob.diff[...] = random.normal(size=blob.shape)
        fed[f"{name}.diff"] = blob.diff.copy()


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


def run_exported(net: Net, exported: Exported, fed: Mapping[str, np.ndarray], layers: Run) -> Run:
    """The exported model in ONNX Runtime, its outputs by the keys of an ``.npz``."""
    session = make_session(exported.model)
    wanted = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    results = run(session, outputs, {name: fed[name] for name in wanted}, "the exported model")
    found = dict(zip(outputs, results, strict=True))
    arrays = {}
    for key in layers.arrays:
        kind, _, name = key.partition("/")
        if kind == "data":
            output = exported.results[name][-1]
        elif kind == "diff":
            # an in-place layer overwrites the diff of its top: what stays is that of the blob's first result
            output = f"{exported.results[name][0]}.diff"
        else:
            output = f"{name}.after" if kind == "param_after" else f"{name}.diff"
        if output in found:
            arrays[key] = found[output]
        elif kind == "diff" and output in fed:
            arrays[key] = fed[output]
        elif kind == "diff":
            arrays[key] = np.zeros_like(layers.arrays[key])  # no gradient reaches it
    return Run(arrays, layers.layers)


def compare(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], layers: Run, rtol: float, atol: float
) -> list[Difference]:
    """One row for each array that both sides have, in the order in which the layers compute them."""
    rows = []
    scales = _parameter_scales(expected)
    for key in layers.arrays:
        if key in expected and key in found:
            scale = scales.get(key.rpartition("/")[0]) if key.startswith("pdiff/") else None
            rows.append(difference(key, layers.layers.get(key, ""), expected[key], found[key], rtol, atol, scale))
    return rows


def _parameter_scales(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest diff of each layer's learnable blobs. A bias ahead of BatchNorm has a gradient that is exactly 0,
    and both sides return the rounding of its sum: it is measured by its layer, not by itself."""
    scales: dict[str, float] = {}
    for key, array in arrays.items():
        if key.startswith("pdiff/") and array.size:
            layer = key.rpartition("/")[0]
            scales[layer] = max(scales.get(layer, 0.0), float(np.max(np.abs(array))))
    return scales


def difference(
    key: str,
    layer: str,
    expected: np.ndarray,
    found: np.ndarray,
    rtol: float,
    atol: float,
    scale: float | None = None,
) -> Difference:
    """Compare two arrays: the largest absolute difference, and that over ``scale`` (default: the largest value)."""
    if expected.shape != found.shape:
        note = f"shape {found.shape}, expected {expected.shape}"
        return Difference(key, layer, expected.shape, np.nan, np.nan, np.nan, (), False, note)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gaps = np.zeros(a.shape)
    gaps[~same] = np.abs(b[~same] - a[~same])
    finite = np.abs(a[np.isfinite(a)])
    largest = float(finite.max()) if finite.size else 0.0
    scale = largest if scale is None else scale
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    absolute = float(gaps.max()) if gaps.size else 0.0
    where = tuple(int(i) for i in np.unravel_index(int(gaps.argmax()), gaps.shape)) if absolute else ()
    relative = absolute / scale if scale else (0.0 if absolute == 0 else np.inf)
    agrees = absolute <= rtol * scale + atol
    note = "NaN on one side only" if absolute == np.inf and np.isnan(a[where]) != np.isnan(b[where]) else ""
    return Difference(key, layer, expected.shape, largest, absolute, relative, where, agrees, note)


def _notes(net: Net) -> list[str]:
    if net.phase != "TRAIN" or any(any(weights) for weights in net.loss_weights):
        return []
    for spec in net.spec.layers:
        if spec.type == "Python" and spec.tops and spec.tops[0] in net.outputs and len(spec.bottoms) > 1:
            return [
                f"no gradient was checked: no top has a loss_weight, and Caffe gives a Python layer none by itself;"
                f" give layer {spec.name!r} loss_weight: 1"
            ]
    return ["no gradient was checked: the net has no loss (and no force_backward)"] if not any(
        net.backward_need.layers
    ) else []
