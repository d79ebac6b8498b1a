"""Loss and gradient of every workload, by every engine, in one run: the first table of README.md beside this file.

python benchmarks/losses.py [--workloads W1,W3] [--engines numba,torch] [--threads N] [--rounds N] [--json F]
                            [--python torch=/path/to/python]...

An engine that cannot be started (torch or Caffe is not installed) is left out. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "layers"), str(HERE)]

import peers  # noqa: E402
import workloads  # noqa: E402

from caffe_layers import functional  # noqa: E402

REUSE = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_ARENA_MAX": "1"}
"""glibc keeps what is freed: else it would give large arrays back at once, and each call would pay for new pages."""
RETURN = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
"""glibc gives arrays back at once, so that what a call needs can be seen."""


class Peer:
    """A process that computes one engine's losses."""

    def __init__(self, engine, threads, python, reuse):
        environment = {**os.environ, "CAFFE_LAYERS_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        environment.update(REUSE if reuse else RETURN)
        command = [python, str(HERE / "peers.py"), engine, str(threads)]
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )

    def ask(self, **command):
        """The peer's answer, or None when it has failed."""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            return None

    def last_error(self):
        self._process.wait()
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["no message"])[-1]

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def measure(name, engines, options):
    """The results of one workload: engine to dict."""
    started, results = {}, {}
    for engine in engines:
        if engine == "caffe" and name not in peers.CAFFE_TYPES:
            continue
        peer = Peer(engine, options.threads, options.python.get(engine, sys.executable), reuse=True)
        if peer.ask(do="prepare", workload=name) is None:
            print(f"{name}: {engine} is left out: {peer.last_error()}", file=sys.stderr)
        else:
            started[engine] = peer
    times = {engine: [] for engine in started}
    for _ in range(options.rounds):  # in turn, so that whatever else the machine does hits all of them
        for engine, peer in started.items():
            times[engine].extend(peer.ask(do="time", workload=name)["ms"])
    reference = None
    for engine, peer in started.items():
        ms = times[engine]
        results[engine] = {"median_ms": statistics.median(ms), "min_ms": min(ms), "max_ms": max(ms)}
        if engine != "floor":
            reference = reference or _reference(name)
            results[engine].update(_errors(peer, name, reference))
        peer.close()
    if options.memory:
        for engine in started:
            if engine != "floor":
                peer = Peer(engine, options.threads, options.python.get(engine, sys.executable), reuse=False)
                peer.ask(do="prepare", workload=name)
                results[engine]["extra_bytes"] = peer.ask(do="memory", workload=name)["extra_bytes"]
                peer.close()
    return results


def _reference(name):
    scores, labels = workloads.arrays(name)
    workload = workloads.WORKLOADS[name]
    return getattr(functional, workload.function)(scores.astype(np.float64), labels, **workload.parameters)


def _errors(peer, name, reference):
    """The errors against float64: the loss's relative to it, the gradient's to its largest element."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "gradient.npy")
        loss = peer.ask(do="check", workload=name, file=file)["loss"]
        gradient = np.load(file)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(gradient, reference[1], strict=True))
    largest = max(float(np.abs(part).max()) for part in reference[1])
    return {"loss_error": abs(loss - reference[0]) / abs(reference[0]), "gradient_error": worst / largest}


def table(results):
    """The Markdown table: a row per workload, the median milliseconds, and in brackets the ratio to the floor."""
    engines = list(dict.fromkeys(engine for found in results.values() for engine in found))
    lines = ["| work | " + " | ".join(engines) + " |", "|---|" + "---|" * len(engines)]
    for name, found in results.items():
        cells = []
        for engine in engines:
            cells.append("–" if engine not in found else _cell(name, engine, found))
        lines.append(f"| {name} {workloads.WORKLOADS[name].text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name, engine, found):
    ms = found[engine]["median_ms"]
    if workloads.WORKLOADS[name].repeat > 1:
        return f"{ms * 1e3:.3g} µs"
    if engine == "floor" or "floor" not in found:
        return f"{ms:.3g}"
    return f"{ms:.3g} ({ms / found['floor']['median_ms']:.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(workloads.WORKLOADS))
    parser.add_argument("--engines", default=",".join(peers.ENGINES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure peak extra memory")
    parser.add_argument("--json", metavar="F")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=EXE", help="the Python of a peer")
    options = parser.parse_args()
    options.python = dict(text.split("=", 1) for text in options.python)
    names, engines = options.workloads.split(","), options.engines.split(",")
    for unknown in [name for name in names if name not in workloads.WORKLOADS]:
        parser.error(f"no workload {unknown}: there are {', '.join(workloads.WORKLOADS)}")
    for unknown in [engine for engine in engines if engine not in peers.ENGINES]:
        parser.error(f"no engine {unknown}: there are {', '.join(peers.ENGINES)}")
    results = {}
    for name in names:
        results[name] = measure(name, engines, options)
        print(table({name: results[name]}).splitlines()[-1], file=sys.stderr)
    print(table(results))
    if options.json:
        rows = [
            {
                "workload": name,
                "engine": engine,
                **row,
                "ratio_to_floor": row["median_ms"] / found["floor"]["median_ms"] if "floor" in found else None,
                "loss_error": row.get("loss_error"),
                "gradient_error": row.get("gradient_error"),
                "extra_bytes": row.get("extra_bytes"),
            }
            for name, found in results.items()
            for engine, row in found.items()
        ]
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
