"""What the way from Caffe to ONNX costs on a net of VGG16's size, and how fast the exported model runs.

    python benchmarks/port.py [--threads N] [--repeats N] [--json F]

A VGG16 (138 million parameters) is generated with random weights. In processes of their own: the file of its weights
read and written once (the floor), and `caffe-layers export`. Then the exported model in ONNX Runtime and the original
in OpenCV's dnn module (where opencv-python before 5 is installed) run in turns, with the same threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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

from caffe_tools.binaryproto import caffemodel
from caffe_tools.export.export import ExportOptions, export, save
from caffe_tools.net.net import TEST, Net

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""VGG16's channels and convolutions between its poolings."""
PICTURE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", metavar="F")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measured(JOBS[options.job], Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = run_all(Path(folder), options)
    show(rows)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def run_all(folder: Path, options: argparse.Namespace) -> list[dict]:
    print("generating the net", file=sys.stderr)
    size = generate(folder)
    rows = []
    for job, title in (("copy", "read and write the weights once"), ("export", "caffe-layers export")):
        results = [in_a_process(job, folder) for _ in range(3)]
        best = min(results, key=lambda result: result["seconds"])
        peak = max(result["peak_bytes"] for result in results)
        rows.append({"what": title, "seconds": best["seconds"], "peak_bytes": peak, "weights_bytes": size})
    return rows + run_in_turns(folder, options)


def generate(folder: Path) -> int:
    """VGG16's prototxt and random weights; the bytes of the weights' file."""
    (folder / "vgg16.prototxt").write_text(prototxt_text(), encoding="utf-8")
    random = np.random.default_rng(0)

    def weights(outputs: int, *inputs: int) -> list[np.ndarray]:
        scale = np.sqrt(2 / np.prod(inputs))
        return [random.standard_normal((outputs, *inputs), np.float32) * np.float32(scale), np.zeros(outputs, "f4")]

    layers, channels = [], 3
    for stage, (outputs, count) in enumerate(STAGES, start=1):
        for number in range(1, count + 1):
            layers.append((f"conv{stage}_{number}", "Convolution", weights(outputs, channels, 3, 3)))
            channels = outputs
    for name, outputs, inputs in (("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 1000, 4096)):
        layers.append((name, "InnerProduct", weights(outputs, inputs)))
    caffemodel.write(folder / "vgg16.caffemodel", layers, name="VGG16")
    return (folder / "vgg16.caffemodel").stat().st_size


def prototxt_text() -> str:
    lines = [
        'name: "VGG16"',
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: {PICTURE}'
        f" dim: {PICTURE} }} }} }}",
    ]
    blob = "data"

    def add(name: str, kind: str, parameters: str, in_place: bool = False) -> None:
        nonlocal blob
        top = blob if in_place else name
        lines.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{blob}" top: "{top}" {parameters} }}')
        blob = top

    for stage, (outputs, count) in enumerate(STAGES, start=1):
        for number in range(1, count + 1):
            parameters = f"convolution_param {{ num_output: {outputs} pad: 1 kernel_size: 3 }}"
            add(f"conv{stage}_{number}", "Convolution", parameters)
            add(f"relu{stage}_{number}", "ReLU", "", in_place=True)
        add(f"pool{stage}", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    for number, outputs in ((6, 4096), (7, 4096), (8, 1000)):
        add(f"fc{number}", "InnerProduct", f"inner_product_param {{ num_output: {outputs} }}")
        if number < 8:
            add(f"relu{number}", "ReLU", "", in_place=True)
            add(f"drop{number}", "Dropout", "", in_place=True)
    add("prob", "Softmax", "")
    return "\n".join(lines) + "\n"


def in_a_process(job: str, folder: Path) -> dict:
    command = [sys.executable, __file__, "--job", job, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measured(job, folder: Path) -> dict:
    start = time.perf_counter()
    job(folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024)}


def copy_once(folder: Path) -> None:
    data = (folder / "vgg16.caffemodel").read_bytes()
    (folder / "copy").write_bytes(data)


def export_once(folder: Path) -> None:
    net = Net(folder / "vgg16.prototxt", TEST, weights=folder / "vgg16.caffemodel")
    save(export(net, ExportOptions(dynamic_batch=True)), folder / "vgg16.onnx")


JOBS = {"copy": copy_once, "export": export_once}


def run_in_turns(folder: Path, options: argparse.Namespace) -> list[dict]:
    """The forward pass of one picture, in milliseconds: medians of runs taken in turns."""
    picture = np.random.default_rng(1).standard_normal((1, 3, PICTURE, PICTURE), np.float32)
    engines = {"ONNX Runtime, exported model": onnxruntime_engine(folder, options.threads, picture)}
    for title, winograd in (("OpenCV dnn, the original", True), ("the same without Winograd", False)):
        opencv = opencv_engine(folder, options.threads, picture, winograd)
        if opencv is not None:
            engines[title] = opencv
    outputs = {name: engine() for name, engine in engines.items()}
    reference = next(iter(outputs.values()))
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.repeats):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine()
            times[name].append((time.perf_counter() - start) * 1e3)
    return [
        {
            "what": name,
            "median_ms": statistics.median(values),
            "min_ms": min(values),
            "max_ms": max(values),
            "threads": options.threads,
            "largest_difference": float(np.abs(outputs[name] - reference).max()),
        }
        for name, values in times.items()
    ]


def onnxruntime_engine(folder: Path, threads: int, picture: np.ndarray):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "vgg16.onnx"), settings)
    return lambda: session.run(None, {"data": picture})[0]


def opencv_engine(folder: Path, threads: int, picture: np.ndarray, winograd: bool):
    """The original net; OpenCV computes 3x3 convolutions by Winograd's algorithm unless it is told not to."""
    try:
        import cv2
    except ImportError:
        return None
    if int(cv2.__version__.split(".")[0]) >= 5:
        return None
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromCaffe(str(folder / "vgg16.prototxt"), str(folder / "vgg16.caffemodel"))
    net.enableWinograd(winograd)

    def forward() -> np.ndarray:
        net.setInput(picture)
        return net.forward()

    return forward


def show(rows: list[dict]) -> None:
    """Markdown, as README.md beside this file shows it."""
    console = Console(width=110)
    floor = rows[0]
    table = Table("", "time", "ratio", "peak memory", "over the weights", box=box.MARKDOWN)
    for row in rows[:2]:
        table.add_row(
            row["what"],
            f"{row['seconds']:.2f} s",
            f"{row['seconds'] / floor['seconds']:.1f}",
            f"{row['peak_bytes'] / 2**20:.0f} MiB",
            f"{row['peak_bytes'] / row['weights_bytes']:.2f}",
        )
    console.print(table)
    table = Table("one picture", "median", "least", "greatest", "ratio", box=box.MARKDOWN)
    for row in rows[2:]:
        numbers = [f"{row[key]:.0f} ms" for key in ("median_ms", "min_ms", "max_ms")]
        table.add_row(row["what"], *numbers, f"{row['median_ms'] / rows[2]['median_ms']:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
