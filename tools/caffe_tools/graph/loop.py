"""Loops in a graph: for what depends on the step before, and for what would take too much memory all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.dims import dtype_of

Body: TypeAlias = "Callable[[Builder, ir.Value, Sequence[ir.Value], Sequence[ir.Value]], Sequence[ir.Value]]"


def loop(op: Builder, count: ir.Value, state: Sequence[ir.Value], constants: Sequence[ir.Value], body: Body) -> tuple:
    """``state`` after ``count`` (an int64 scalar) steps of ``state = body(op, step, state, constants)``.

    The body gets a builder of its own and may use the values that it is handed, and no other of the graph: so a loop
    is a node like any other, whose inputs say all that it depends on. Dtypes and shapes of the state stay the same.
    No gradient passes through a loop; a layer that has one defines its own (``Builder.define_gradient``).
    """
    inner = op.inner("body")
    step, go_on = inner.input("step", (), "int64"), inner.input("go_on", (), "bool")
    carried = [inner.input("carried", op.shape(value), dtype_of(value)) for value in (*state, *constants)]
    after = body(inner, step, carried[: len(state)], carried[len(state) :])
    for value in (go_on, *after, *carried[len(state) :]):
        inner.graph.outputs.append(inner.Identity(value))
    always = op.constant(True, "bool")
    results = op.Loop(count, always, *state, *constants, outputs=len(carried), body=inner.graph)
    return results[: len(state)] if isinstance(results, tuple) else (results,)
