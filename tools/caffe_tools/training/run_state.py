"""What a training run remembers beyond Caffe's own snapshot, so that it goes on with the same numbers to the bit.

That is: where its data layers are, the random numbers that come next, the hidden states of recurrent layers, and the
last losses (for average_loss). It stands in ``<snapshot>.runstate.npz`` beside the ``.solverstate``; Caffe knows
nothing of it and does not need it. Keys:

    random/<net>                    the state of the net's random generator, as JSON
    python/<net>/<layer>/<name>     what a Python layer's get_state() gave
    state/<net>/<layer>/<index>     a recurrent layer's state
    losses                          the losses that average_loss counts
    weights                         the SHA-256 of the .caffemodel that it belongs to

<net> is train, test0, test1, … A Python layer takes part by two methods, get_state() → {name: array} and
set_state({name: array}).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TypeGuard

import numpy as np

from caffe_tools.errors import SolverError
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.standard_layer import StandardLayer

Arrays = dict[str, np.ndarray]


def net_state(net: Net, name: str) -> Arrays:
    """The state of one net, by the keys above."""
    found: Arrays = {f"random/{name}": np.array(json.dumps(net.random.bit_generator.state))}
    for layer in net.layers:
        where = f"{name}/{layer.spec.name}"
        if isinstance(layer, StandardLayer):
            found |= {f"state/{where}/{index}": array.copy() for index, array in layer.states.items()}
        elif _keeps_state(layer):
            with layer.naming():
                state = layer.instance.get_state()
                found |= {f"python/{where}/{key}": np.array(value) for key, value in state.items()}
    return found


def restore_net(net: Net, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Put the net where it was when ``net_state`` gave ``arrays``; what they do not hold stays as it is.

    Raises SolverError where they are the state of another net.
    """
    if f"random/{name}" in arrays:
        try:
            net.random.bit_generator.state = json.loads(str(arrays[f"random/{name}"]))
        except (ValueError, TypeError, KeyError):
            raise SolverError(f"random/{name} is no state of a random generator: a damaged run state") from None
    for layer in net.layers:
        if isinstance(layer, StandardLayer) and layer.states:
            kept = _under(arrays, f"state/{name}/{layer.spec.name}/")
            shapes = {index: array.shape for index, array in layer.states.items()}
            if kept and {int(index): array.shape for index, array in kept.items()} != shapes:
                raise SolverError(f"{layer.spec.place}: the run state is that of another net: its states have {shapes}")
            layer.states = {int(index): array for index, array in kept.items()} or layer.states
        elif _keeps_state(layer):
            kept = _under(arrays, f"python/{name}/{layer.spec.name}/")
            if kept:
                with layer.naming():
                    layer.instance.set_state(kept)


def forgetful_data_layers(net: Net) -> Iterator[PythonLayer]:
    """The Python data layers that do not say where they are, so that they start anew when the run is resumed."""
    for layer in net.layers:
        if isinstance(layer, PythonLayer) and not layer.spec.bottoms and not _keeps_state(layer):
            yield layer


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _keeps_state(layer: object) -> TypeGuard[PythonLayer]:
    return isinstance(layer, PythonLayer) and hasattr(layer.instance, "get_state")


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
