"""The same net in a real Caffe, or in OpenCV's dnn module: what ``check --against`` compares with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import caffe_layers
from caffe_tools import prototxt
from caffe_tools.binaryproto import caffemodel
from caffe_tools.check import caffe_peer
from caffe_tools.errors import NetError, one_line
from caffe_tools.files import load_arrays, save_arrays
from caffe_tools.net.keys import DATA, IN, PARAM, Arrays
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer
from caffe_tools.prototxt.message import Message

SILENT_FOR = 600
"""Seconds that a peer may take."""


def flat_net(net: Net) -> Message:
    """The layers of the net's phase alone, in today's form, with an Input in place of every layer that makes data.

    A peer that runs it sees just what this net sees, whatever the data layers would have read.
    """
    flat = Message()
    flat.add("name", net.name)
    if net.spec.force_backward:
        flat.add("force_backward", True)
    for placed in net.placed:
        spec = placed.spec
        if spec.is_inserted:
            continue
        if spec.bottoms:
            layer = flat.add("layer", spec.message.copy())
            layer.remove("include")
            layer.remove("exclude")
            continue
        layer = flat.add("layer", Message())
        layer.add("name", spec.name)
        layer.add("type", "Input")
        for top in spec.tops:
            layer.add("top", top)
        shapes = layer.add("input_param", Message())
        for blob in placed.tops:
            shape = shapes.add("shape", Message())
            for dim in blob.shape:
                shape.add("dim", dim)
    return flat


def run_caffe(net: Net, fed: Arrays, python: str = sys.executable) -> dict[str, np.ndarray]:
    """Forward and, in TRAIN phase, backward in a real Caffe, in the interpreter ``python``.

    ``fed`` are the data, the learnable blobs and the diffs that backward starts from: ``in/…``, ``param/…`` and
    ``top_diff/…``. Raises NetError where there is no Caffe, or it refuses the net.
    """
    for layer in net.layers:
        if isinstance(layer, StandardLayer) and layer.layer.draws_random:
            raise NetError(f"{layer.spec} draws other numbers in Caffe in TRAIN phase: give --phase TEST")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "net.prototxt").write_text(prototxt.to_text(flat_net(net)), encoding="utf-8")
        save_arrays(place / "inputs.npz", fed)
        arguments = {
            "net": str(place / "net.prototxt"),
            "phase": net.phase,
            "inputs": str(place / "inputs.npz"),
            "outputs": str(place / "outputs.npz"),
            "backward": net.phase == "TRAIN" and net.runs_backward,
            "path": [str(Path(caffe_layers.__file__).parent.parent), str(Path.cwd())],
        }
        (place / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        _run_python(python, Path(caffe_peer.__file__), place / "arguments.json")
        return load_arrays(place / "outputs.npz")


def _run_python(python: str, script: Path, arguments: Path) -> None:
    try:
        done = subprocess.run(
            [python, str(script), str(arguments)], capture_output=True, text=True, timeout=SILENT_FOR, check=False
        )
    except OSError as error:
        raise NetError(f"cannot run {python}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NetError(f"Caffe in {python} has not answered for {SILENT_FOR} s") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else f"exit code {done.returncode}"
    if "No module named 'caffe'" in done.stderr:
        raise NetError(f"{python} has no Caffe: name one that has with --caffe-python EXE")
    # Caffe itself ends the process on a failed check, with the reason on a line of its own
    failed = next((line.strip() for line in lines if "Check failed" in line or line.startswith("F")), last)
    raise NetError(f"Caffe in {python} fails: {failed}")


def run_opencv(net: Net, fed: Arrays) -> dict[str, np.ndarray]:
    """Forward in OpenCV's dnn module (opencv-python before 5), fed with ``in/…`` and ``param/…``: ``data/<blob>``.

    Of the blobs that in-place layers change the final value counts. Raises NetError where OpenCV is not there, is too
    new, or refuses the net; in TRAIN phase, which OpenCV does not know.
    """
    if net.phase != "TEST":
        raise NetError("OpenCV runs nets in TEST phase alone: give --phase TEST")
    try:
        import cv2
    except ImportError:
        raise NetError("OpenCV is not installed: pip install 'caffe-layers[opencv]'") from None
    if int(cv2.__version__.split(".")[0]) >= 5:
        raise NetError(f"OpenCV {cv2.__version__} has no Caffe importer any more: install opencv-python before 5")
    with tempfile.TemporaryDirectory() as folder:
        text, weights = Path(folder) / "net.prototxt", Path(folder) / "net.caffemodel"
        text.write_text(prototxt.to_text(flat_net(net)), encoding="utf-8")
        parts = PARAM.of(fed)  # the forward pass may have changed the net's own
        blobs = [(placed.name, placed.layer.type, [parts[name] for name in placed.learnable]) for placed in net.placed]
        caffemodel.write(weights, blobs, name=net.name)
        try:
            peer = cv2.dnn.readNetFromCaffe(str(text), str(weights))
            for name, array in IN.of(fed).items():
                peer.setInput(np.ascontiguousarray(array, np.float32), name)
            makers = _makers(net)
            outputs = peer.forward(list(makers.values()))
        except cv2.error as error:
            raise NetError(f"OpenCV {cv2.__version__} refuses the net: {one_line(error)}") from None
    return DATA.keyed(dict(zip(makers, outputs, strict=True)))


def _makers(net: Net) -> dict[str, str]:
    """For each computed blob with one top's layer behind it, the last layer that writes it (OpenCV's output name)."""
    makers: dict[str, str] = {}
    for spec in (placed.spec for placed in net.placed):
        if not spec.is_inserted and spec.bottoms and len(spec.tops) == 1:
            makers[spec.tops[0]] = spec.name
    return makers
