"""ONNX Runtime sessions."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxruntime

from caffe_tools.errors import GraphError

IR_VERSION = 10
"""The ONNX IR version that models are written with: read by every ONNX Runtime since 1.19."""


def make_session(graph: ir.Graph | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU that runs ``graph``."""
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)) if isinstance(graph, ir.Graph) else graph
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # a net has a session for every layer: their threads must not spin while another one works
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise GraphError(f"ONNX Runtime refuses the graph {model.graph.name!r}: {_one_line(error)}") from None


def run(session: onnxruntime.InferenceSession, names: list[str] | None, feeds: dict, what: str) -> list:
    """The outputs ``names`` (None: all) of ``session``; GraphError, naming ``what``, where it fails."""
    try:
        return session.run(names, feeds)
    except Exception as error:
        raise GraphError(f"{what}: ONNX Runtime: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
