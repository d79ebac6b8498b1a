"""Faults planted into exported models: a value of the model, multiplied."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
from onnx import helper

from caffe_tools.export.export import Exported

CHECK = importlib.import_module("caffe_tools.check.check")
"""The module: its package has a function of that name."""


def multiply(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Put a Mul behind the value ``name``: whatever reads it, reads what is wrong."""
    graph = model.graph
    place, node = next((i, node) for i, node in enumerate(graph.node) if name in node.output)
    node.output[list(node.output).index(name)] = f"{name} before"
    graph.initializer.append(helper.make_tensor("planted", onnx.TensorProto.FLOAT, [], [factor]))
    graph.node.insert(place + 1, helper.make_node("Mul", [f"{name} before", "planted"], [name]))


@contextmanager
def planted(key: str, factor: float = 1.001) -> Iterator[None]:
    """Inside, ``check`` meets exported models whose output ``key`` is wrong by that factor."""
    right = CHECK.export

    def wrong(*arguments: object) -> Exported:
        exported = right(*arguments)
        multiply(exported.model, exported.outputs[key], factor)
        return exported

    CHECK.export = wrong
    try:
        yield
    finally:
        CHECK.export = right
