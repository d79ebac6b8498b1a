"""The time of a training step: the exported training graph in ONNX Runtime, against PyTorch and against a real Caffe.

    python benchmarks/train.py [--nets lenet resnet18 ssd] [--threads N] [--repeats N] [--json F]

A step is the forward pass, the losses and the gradients of every learnable blob ("gradients"), and then SGD's update
with momentum; both are timed. The losses and gradients that the graph gives are arrays in the program's hands, as in
PyTorch; its update is ``caffe-layers train``'s. BatchNorm's running statistics move on in all engines. PyTorch runs
eagerly, as by default.

Every engine starts from the same weights and data, in a process of its own; the losses and gradients of the first step
are compared before anything is timed. Then the engines take turns: two steps each, of which the second counts, for in
the first the threads of the engine before may still spin. PyTorch, and a Caffe that Python can import, are optional.
On a machine that others use too, measure with one thread: several wait for each other, PyTorch's most.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from train_nets import NETS

from caffe_tools import TRAIN, Net
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.training.solver_spec import read_solver
from caffe_tools.training.update import Updater, learnable_blobs

RATE, MOMENTUM = 1e-3, 0.9
WARM_UP = 3
"""Steps before those that count."""
ALLOWED = 1e-3
"""By how much a loss or a gradient may differ from PyTorch's, in parts of its largest value."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", metavar="F")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        work(ENGINES[options.engine](options.nets[0], options.folder, options.threads), options)
        return 0
    rows = []
    for name in options.nets:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{NETS[name].title}: comparing, then timing", file=sys.stderr)
            generate(name, Path(folder))
            rows += measure(name, Path(folder), options)
    show(rows, options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    wrong = [row for row in rows if not row["largest_difference"] <= ALLOWED]
    for row in wrong:
        print(f"{row['net']}, {row['engine']}: differs by {row['largest_difference']:.1e}", file=sys.stderr)
    return 1 if wrong else 0


def generate(name: str, folder: Path) -> None:
    """The net, its solver, its weights (drawn by its fillers) and a batch of data, for all engines."""
    (folder / "net.prototxt").write_text(NETS[name].text(), encoding="utf-8")
    (folder / "solver.prototxt").write_text(
        f'net: "{folder / "net.prototxt"}" base_lr: {RATE} lr_policy: "fixed" momentum: {MOMENTUM}'
        f' snapshot_after_train: false snapshot_prefix: "{folder / "snapshot"}"',
        encoding="utf-8",
    )
    net = Net(folder / "net.prototxt", TRAIN, seed=0)
    net.save(folder / "net.caffemodel")
    np.savez(folder / "data.npz", **NETS[name].data(np.random.default_rng(0)))
    learnable = [item for item in learnable_blobs(net) if item.lr_mult]
    np.savez(folder / "weights.npz", **{item.name: item.blob.data for item in learnable})
    (folder / "rates.json").write_text(json.dumps({item.name: item.lr_mult for item in learnable}), encoding="utf-8")


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


# The engines: ``gradients()`` gives losses and gradients, by name, and ``update()`` makes SGD's step by them ----------


class OnnxRuntime:
    """The exported training graph, in a session with default settings."""

    title = "ONNX Runtime, exported graph"

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import onnxruntime

        self.net = Net(folder / "net.prototxt", TRAIN, weights=folder / "net.caffemodel")
        exported = export(self.net, ExportOptions(training=True, parameter_inputs=True))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(exported.model.SerializeToString(), settings)
        self.updater = Updater(read_solver(folder / "solver.prototxt"), self.net)
        blobs = {f"{layer.spec.name}/{i}": blob for layer in self.net.layers for i, blob in enumerate(layer.blobs)}
        self.feeds = {f"in/{blob}": array for blob, array in load(folder / "data.npz").items()}
        self.feeds |= {f"param/{name}": blob.data for name, blob in blobs.items()}
        self.feeds = {exported.inputs[key]: array for key, array in self.feeds.items() if key in exported.inputs}
        self.diffs = {exported.outputs[f"pdiff/{i.name}"]: i.blob.diff for i in self.updater.blobs if i.lr_mult}
        self.moving = {
            output: blobs[key.removeprefix("param_after/")].data
            for key, output in exported.outputs.items()
            if key.startswith("param_after/")
        }
        self.losses = [exported.outputs[f"data/{blob}"] for blob in self.net.outputs]

    def gradients(self) -> dict[str, np.ndarray]:
        names = [*self.losses, *self.diffs, *self.moving]
        self.results = dict(zip(names, self.session.run(names, self.feeds), strict=True))
        for output, array in self.moving.items():
            array[...] = self.results[output]
        return {name.removesuffix(".diff"): self.results[name] for name in (*self.losses, *self.diffs)}

    def update(self) -> None:
        for output, diff in self.diffs.items():
            diff[...] = self.results[output]
        self.updater.apply()


class PyTorch:
    """Eager PyTorch, with its own SGD."""

    title = "PyTorch, eager"

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.function = NETS[name].torch_losses
        weights, rates = load(folder / "weights.npz"), json.loads((folder / "rates.json").read_text(encoding="utf-8"))
        self.parameters = {key: torch.tensor(array, requires_grad=True) for key, array in weights.items()}
        self.data = {key: torch.tensor(array) for key, array in load(folder / "data.npz").items()}
        groups = [
            {"params": [self.parameters[key] for key in rates if rates[key] == rate], "lr": RATE * rate}
            for rate in set(rates.values())
        ]
        self.solver = torch.optim.SGD(groups, momentum=MOMENTUM)

    def gradients(self) -> dict[str, np.ndarray]:
        self.solver.zero_grad()
        losses = self.function(self.parameters, self.data)
        sum(losses.values()).backward()
        found = {key: loss.detach().numpy() for key, loss in losses.items()}
        return found | {key: parameter.grad.numpy() for key, parameter in self.parameters.items()}

    def update(self) -> None:
        self.solver.step()


class Caffe:
    """A real Caffe, with its own SGD; its threads are its BLAS's."""

    title = "Caffe"

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import caffe

        caffe.set_mode_cpu()
        self.solver = caffe.SGDSolver(str(folder / "solver.prototxt"))
        self.net = self.solver.net
        self.net.copy_from(str(folder / "net.caffemodel"))
        for blob, array in load(folder / "data.npz").items():
            self.net.blobs[blob].data[...] = array
        self.learnable = [key.rpartition("/") for key in load(folder / "weights.npz")]

    def gradients(self) -> dict[str, np.ndarray]:
        self.net.clear_param_diffs()
        losses = self.net.forward()
        self.net.backward()
        found = {f"{layer}/{index}": self.net.params[layer][int(index)].diff for layer, _, index in self.learnable}
        return losses | found

    def update(self) -> None:
        self.solver.apply_update()


ENGINES = {"onnx": OnnxRuntime, "torch": PyTorch, "caffe": Caffe}


def missing(engine: str, folder: Path) -> str | None:
    """Why the engine cannot run the net; None where it can."""
    if engine == "torch" and importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if engine == "caffe":
        try:
            import caffe

            known = set(caffe.layer_type_list())  # another package is called caffe too: it has none
        except (ImportError, AttributeError):
            return "no Caffe is importable"
        types = {layer.spec.type for layer in Net(folder / "net.prototxt", TRAIN).layers}
        if not types <= known:
            return f"this Caffe lacks {', '.join(sorted(types - known))}"
    return None


# Measuring -----------------------------------------------------------------------------------------------------------


def work(engine: OnnxRuntime | PyTorch | Caffe, options: argparse.Namespace) -> None:
    """Store what the first step gives; then, for each line read, make two steps and write the second's times."""
    np.savez(options.folder / f"{options.engine}.npz", **engine.gradients())
    for _ in range(WARM_UP):
        engine.gradients()
        engine.update()
    print("[]", flush=True)
    for _ in sys.stdin:
        engine.gradients()
        engine.update()
        start = time.perf_counter()
        engine.gradients()
        middle = time.perf_counter()
        engine.update()
        print(json.dumps([middle - start, time.perf_counter() - start]), flush=True)


def measure(name: str, folder: Path, options: argparse.Namespace) -> list[dict]:
    reasons = {engine: missing(engine, folder) for engine in ENGINES}
    for engine, reason in reasons.items():
        if reason:
            print(f"{NETS[name].title}: {ENGINES[engine].title} is left out: {reason}", file=sys.stderr)
    workers = {engine: start(engine, name, folder, options) for engine, reason in reasons.items() if not reason}
    times: dict[str, list] = {engine: [] for engine in workers}
    try:
        for engine, worker in workers.items():
            answer(engine, worker)
        first = {engine: load(folder / f"{engine}.npz") for engine in workers}
        for _ in range(options.repeats):
            for engine, worker in workers.items():
                print("step", file=worker.stdin, flush=True)
                times[engine].append(answer(engine, worker))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    reference = first.get("torch", first["onnx"])
    rows = []
    for engine, seconds in times.items():
        row = {"net": NETS[name].title, "engine": ENGINES[engine].title, "threads": options.threads}
        for part, values in zip(("gradients", "step"), zip(*seconds, strict=True), strict=True):
            row |= {f"{part}_{key}_ms": function(values) * 1e3 for key, function in SUMMARIES.items()}
        rows.append(row | {"largest_difference": largest_difference(first[engine], reference)})
    return rows


SUMMARIES = {"median": statistics.median, "least": min, "greatest": max}


def start(engine: str, name: str, folder: Path, options: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, __file__, "--engine", engine, "--nets", name, "--folder", str(folder)]
    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "GLOG_minloglevel": "2"}
    return subprocess.Popen(
        [*command, "--threads", threads], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def answer(engine: str, worker: subprocess.Popen) -> list:
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{ENGINES[engine].title} ended with code {worker.wait()}")
    return json.loads(line)


def largest_difference(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Of all losses and gradients, in parts of each one's largest value. Both have the same names."""
    if set(found) != set(reference):
        raise SystemExit(f"one engine alone gives {', '.join(sorted(set(found) ^ set(reference)))}")
    return max(float(np.abs(found[key] - value).max() / np.abs(value).max()) for key, value in reference.items())


def show(rows: list[dict], options: argparse.Namespace) -> None:
    """Markdown, as README.md beside this file shows it."""
    reference = {row["net"]: row for row in rows if row["engine"] == PyTorch.title}
    titles = ("gradients: median", "least", "greatest", "ratio", "with update: median", "ratio", "differs by")
    table = Table("net", f"engine (threads: {options.threads})", *titles, box=box.MARKDOWN)
    for row in rows:
        peer = reference.get(row["net"])
        cells = [f"{row[f'gradients_{key}_ms']:.2f} ms" for key in SUMMARIES]
        cells += [ratio(row, peer, "gradients"), f"{row['step_median_ms']:.2f} ms", ratio(row, peer, "step")]
        difference = "" if row is peer or peer is None else f"{row['largest_difference']:.0e}"
        table.add_row(row["net"], row["engine"], *cells, difference)
    Console(width=180).print(table)


def ratio(row: dict, peer: dict | None, part: str) -> str:
    """The time in parts of PyTorch's."""
    return f"{row[f'{part}_median_ms'] / peer[f'{part}_median_ms']:.2f}" if peer else ""


if __name__ == "__main__":
    sys.exit(main())
