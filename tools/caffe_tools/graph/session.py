"""ONNX Runtime sessions."""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir
import onnxruntime

from caffe_tools.errors import GraphError, one_line

IR_VERSION = 10
"""The ONNX IR version that models are written with: read by every ONNX Runtime since 1.19."""


@cache
def newest_opset() -> int:
    """The newest opset that both the installed onnx and the installed ONNX Runtime know."""
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "opset", [x], [y])
        opsets = [onnx.helper.make_opsetid("", opset)]
        try:
            make_session(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION))
        except GraphError:
            continue
        return opset
    raise GraphError("the installed ONNX Runtime takes no opset that the installed onnx knows")


def make_session(graph: ir.Graph | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU that runs ``graph``."""
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)) if isinstance(graph, ir.Graph) else graph
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it need not be printed as well
    # a net has a session for every layer: their threads must not spin while another one works
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise GraphError(f"ONNX Runtime refuses the graph {model.graph.name!r}: {one_line(error)}") from None


def run(session: onnxruntime.InferenceSession, names: list[str] | None, feeds: dict, what: str) -> list:
    """The outputs ``names`` (None: all) of ``session``; GraphError, naming ``what``, where it fails."""
    try:
        return session.run(names, feeds)
    except Exception as error:
        raise GraphError(f"{what}: ONNX Runtime: {one_line(error)}") from None
