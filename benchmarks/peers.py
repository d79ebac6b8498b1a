"""What losses.py measures, one function per engine: ``prepare(name, threads)`` gives a function of no arguments.

That function computes the loss and its gradient by the scores once and returns both. A peer runs in a process of its
own, ``python peers.py ENGINE THREADS``, which reads commands (JSON, one a line) and answers each with a line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import workloads

ROOT = Path(__file__).resolve().parent.parent


def ours(name, threads):
    from caffe_layers import functional

    workload = workloads.WORKLOADS[name]
    function, (scores, labels) = getattr(functional, workload.function), workloads.arrays(name)
    return lambda: function(scores, labels, **workload.parameters)


def floor(name, threads):
    """A copy of as many bytes as scores, labels and gradient have: half of them read, half written."""
    from concurrent.futures import ThreadPoolExecutor

    scores, labels = workloads.arrays(name)
    size = (2 * scores.nbytes + labels.nbytes) // 2
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    bounds = np.linspace(0, size, threads + 1).astype(int)
    pool = ThreadPoolExecutor(threads)
    parts = [(target[a:b], source[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def copy():
        list(pool.map(lambda part: np.copyto(*part), parts))
        return None, None

    return copy


def naive(name, threads):
    """As the formulas are usually typed into numpy."""
    x, labels = workloads.arrays(name)
    if name in ("W1", "W2"):
        t, n = labels, len(x)

        def sigmoid_loss():
            p = 1 / (1 + np.exp(-x))
            cross_entropy = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
            if name == "W2":
                return cross_entropy.sum() / n, (p - t) / n
            q = p * (1 - t) + (1 - p) * t
            weight = (0.25 * t + 0.75 * (1 - t)) * q**2
            slope = p - t + 2 * (1 - 2 * t) * p * (1 - p) / q * cross_entropy
            return (weight * cross_entropy).sum() / n, weight * slope / n

        return sigmoid_loss

    def softmax_loss():
        e = np.exp(x - x.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        if name == "W4":
            share = labels / np.maximum(np.count_nonzero(labels, axis=1), 1)[:, None].astype(np.float32)
            mass = share.sum(axis=1, keepdims=True)
            return -(share * np.log(p)).sum() / len(x), (p * mass - share) / len(x)
        counted = labels != 255
        label = np.where(counted, labels, 0)[:, None]
        p_t = np.take_along_axis(p, label, axis=1)[:, 0]
        weight = counted / np.float32(counted.sum())
        losses = -np.log(p_t)
        if name == "W5":
            alpha = np.where(labels == 0, np.float32(0.75), np.float32(0.25))
            weight, q = weight * alpha, 1 - p_t
            loss = (weight * q**2 * losses).sum()
            weight = weight * (q**2 + 2 * q * p_t * losses)
        else:
            loss = (weight * losses).sum()
        np.put_along_axis(p, label, (p_t - 1)[:, None], axis=1)
        return loss, p * weight[:, None].astype(np.float32)

    return softmax_loss


def onnx(name, threads):
    """The exported graph in ONNX Runtime."""
    import onnx_ir
    import onnxruntime

    import caffe_layers
    from caffe_tools.gradient import gradients
    from caffe_tools.graph.builder import Builder

    workload, (scores, labels) = workloads.WORKLOADS[name], workloads.arrays(name)
    labels = labels.astype(np.float32)
    layer = getattr(caffe_layers, workload.layer)()
    layer.param_str, layer.top_count = json.dumps(workload.parameters), 1
    layer.setup([None] * 2, [None])
    op = Builder(float_type=np.float32)
    values = [op.input(f"b{i}", ("batch", *array.shape[1:])) for i, array in enumerate((scores, labels))]
    loss = layer.onnx(op, *values)
    loss = loss[0] if isinstance(loss, tuple) else loss
    (gradient,) = gradients(op, {loss: op.constant([1.0])}, values[:1])
    op.output(loss, "loss")
    op.output(gradient, "gradient")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx_ir.to_proto(onnx_ir.Model(op.graph, ir_version=9)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def run():
        loss, gradient = session.run(None, {"b0": scores, "b1": labels})
        return float(loss[0]), gradient

    return run


def torch_eager(name, threads, compiled=False):
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    scores, labels = (torch.from_numpy(array) for array in workloads.arrays(name))
    scores.requires_grad_()

    def loss_of(x, t):
        if name == "W2":
            return functional.binary_cross_entropy_with_logits(x, t, reduction="sum") / len(x)
        if name == "W1":  # torchvision.ops.sigmoid_focal_loss
            p = torch.sigmoid(x)
            cross_entropy = functional.binary_cross_entropy_with_logits(x, t, reduction="none")
            p_t = p * t + (1 - p) * (1 - t)
            return ((0.25 * t + 0.75 * (1 - t)) * cross_entropy * (1 - p_t) ** 2).sum() / len(x)
        if name == "W4":
            share = t / (t != 0).sum(dim=1, keepdim=True).clamp(min=1)
            return -(share * functional.log_softmax(x, dim=1)).sum() / len(x)
        if name == "W5":
            nll = functional.cross_entropy(x, t, reduction="none")
            alpha = torch.where(t == 0, 0.75, 0.25)
            return (alpha * (1 - torch.exp(-nll)) ** 2 * nll).mean()
        return functional.cross_entropy(x, t, ignore_index=255)

    loss_of = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def run():
        scores.grad = None
        loss = loss_of(scores, labels)
        loss.backward()
        return float(loss.detach()), scores.grad.numpy()

    return run


def torch_compile(name, threads):
    return torch_eager(name, threads, compiled=True)


CAFFE_TYPES = {"W2": "SigmoidCrossEntropyLoss", "W3": "SoftmaxWithLoss", "W6": "SoftmaxWithLoss"}


def caffe(name, threads):
    """A real Caffe's own layer; it has no other of these losses."""
    import tempfile

    import caffe as real

    scores, labels = workloads.arrays(name)
    text = 'force_backward: true layer { name: "in" type: "Input" top: "x" top: "t" input_param {'
    for array in (scores, labels):
        text += " shape { " + " ".join(f"dim: {dim}" for dim in array.shape) + " }"
    text += f' }} }} layer {{ name: "l" type: "{CAFFE_TYPES[name]}" bottom: "x" bottom: "t" top: "loss"'
    text += " propagate_down: true propagate_down: false"
    text += " loss_param { ignore_label: 255 } }" if name == "W3" else " }"
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        net = real.Net(file.name, real.TRAIN)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = scores, labels

    def run():
        net.forward()
        net.backward()
        return float(net.blobs["loss"].data), net.blobs["x"].diff

    return run


ENGINES = {
    "floor": floor,
    "numba": ours,
    "numpy": ours,
    "torch.compile": torch_compile,
    "torch": torch_eager,
    "naive": naive,
    "onnx": onnx,
    "caffe": caffe,
}


def _resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def _extra_bytes(run, scores_bytes):
    """How far the process's memory rises during one call beyond its beginning and the gradient."""
    run()
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")
    before = _resident("VmRSS")
    result = run()
    extra = _resident("VmHWM") - before - scores_bytes
    del result
    return max(0, extra)


WAKING, CALLS = 0.3, 5
"""At each turn: seconds of calls that are not timed, since cores and threads have slept while the others were measured,
and the number of calls that are."""


def _timed(run, repeat):
    """Milliseconds of a call, the mean of ``repeat``."""
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    return (time.perf_counter() - start) / repeat * 1e3


def serve(engine, threads):
    """Answer commands until the input ends. Each is {"do": prepare | time | check | memory, "workload": W, ...}."""
    run = None
    for line in sys.stdin:
        command = json.loads(line)
        name = command["workload"]
        answer = {}
        if command["do"] == "prepare":
            run = ENGINES[engine](name, threads)
            run()
            run()
        elif command["do"] == "time":
            awake = time.perf_counter() + WAKING
            while time.perf_counter() < awake:
                run()
            answer["ms"] = [_timed(run, workloads.WORKLOADS[name].repeat) for _ in range(CALLS)]
        elif command["do"] == "check":
            loss, gradient = run()
            np.save(command["file"], gradient)
            answer["loss"] = float(loss)
        else:
            answer["extra_bytes"] = _extra_bytes(run, workloads.arrays(name)[0].nbytes)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "layers"), str(ROOT / "tools")]
    if sys.argv[1] in ("numba", "numpy"):
        os.environ["CAFFE_LAYERS_ENGINE"] = sys.argv[1]
    serve(sys.argv[1], int(sys.argv[2]))
