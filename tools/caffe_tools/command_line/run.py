"""Run the net layer by layer and show its outputs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from caffe_tools.command_line.shared import DONE, add_net_options, load_net, progress
from caffe_tools.errors import NetError

if TYPE_CHECKING:
    import numpy as np

    from caffe_tools.net.net import Net


def add(command: argparse.ArgumentParser) -> None:
    add_net_options(command)
    command.add_argument("--backward", action="store_true", help="run backward too")
    command.add_argument("--save", metavar="F.npz", help="write inputs, parameters, blobs and gradients")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.files import save_arrays
    from caffe_tools.report.tables import print_run

    with progress(f"running {options.net}") as say:
        net = load_net(options)
        if options.backward and not any(net.backward_need.layers):
            raise NetError("nothing runs backward in this net: no learnable blob lies under a loss")
        say("forward")
        arrays = {key: array.copy() for key, array in _put_in(net, options.backward).items()}
        net.forward()
        if options.backward:
            say("backward")
            net.backward()
    if options.save:
        save_arrays(options.save, arrays | _come_out(net, options.backward))
    print_run(net, options.backward)
    return DONE


def _put_in(net: Net, backward: bool) -> dict[str, np.ndarray]:
    from caffe_tools.net.backward_need import has_loss
    from caffe_tools.net.inputs import fed_from_outside

    arrays = {f"in/{name}": net.blobs[name].data for name in fed_from_outside(net)}
    arrays |= {f"param/{name}/{i}": blob.data for name, blobs in net.params.items() for i, blob in enumerate(blobs)}
    if backward and not has_loss(net):
        arrays |= {f"top_diff/{name}": net.blobs[name].diff for name in net.outputs}
    return arrays


def _come_out(net: Net, backward: bool) -> dict[str, np.ndarray]:
    splits = {top for spec in net.spec.layers if spec.is_inserted for top in spec.tops}
    blobs = {name: blob for name, blob in net.blobs.items() if name not in splits}
    arrays = {f"data/{name}": blob.data for name, blob in blobs.items()}
    if backward:
        arrays |= {f"diff/{name}": blob.diff for name, blob in blobs.items()}
        arrays |= {f"pdiff/{n}/{i}": blob.diff for n, all_ in net.params.items() for i, blob in enumerate(all_)}
    return arrays
