"""Solvers and small nets for their tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nets
from caffe_tools import prototxt
from caffe_tools.training.solver_spec import SolverSpec
from nets import dims, layer, net_of

FIXED = 'base_lr: 0.1 lr_policy: "fixed" '


def filled(name: str, shape: tuple) -> str:
    """A DummyData layer that draws its blob anew in every forward pass."""
    text = f'dummy_data_param {{ shape {{ {dims(shape)} }} data_filler {{ type: "gaussian" }} }}'
    return layer(name, "DummyData", "", name, text)


inner_product = partial(nets.inner_product, fillers=nets.XAVIER)

NET = (
    filled("data", (4, 5))
    + filled("target", (4, 3))
    + inner_product("ip", "data", "score")
    + layer("loss", "EuclideanLoss", "score target", "loss")
)


def solver_of(text: str = "", net: str = NET) -> SolverSpec:
    """A solver with ``net`` in its text; where ``text`` has no learning rate, it is 0.1."""
    rate = "" if "lr_policy" in text else FIXED
    return SolverSpec(prototxt.parse(f"{text} {rate} net_param {{ {net} }}", "solver.prototxt"))


def train_net(net: str = NET):
    return net_of(net, "TRAIN")


def write_solver(folder: Path, text: str, net: str = NET) -> Path:
    """A solver and its net as files; snapshots go into the same folder."""
    (folder / "net.prototxt").write_text(net)
    path = folder / "solver.prototxt"
    rate = "" if "lr_policy" in text else FIXED
    path.write_text(f'net: "{folder / "net.prototxt"}" {rate} snapshot_prefix: "{folder / "run"}" {text}\n')
    return path
