"""Run the net layer by layer and show its outputs."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import DONE, add_net_options, load_net, output, progress
from caffe_tools.errors import NetError


def add(command: argparse.ArgumentParser) -> None:
    add_net_options(command)
    command.add_argument("--backward", action="store_true", help="run backward too")
    command.add_argument("--save", type=output, metavar="F.npz", help="write inputs, parameters, blobs and gradients")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.files import save_arrays
    from caffe_tools.net.inputs import what_comes_out, what_goes_in
    from caffe_tools.report.tables import print_run

    with progress(f"running {options.net}") as say:
        net = load_net(options)
        if options.backward and not net.runs_backward:
            raise NetError("nothing runs backward in this net: no learnable blob lies under a loss")
        say("forward")
        arrays = {key: array.copy() for key, array in what_goes_in(net, options.backward).items()}
        net.forward()
        if options.backward:
            say("backward")
            net.backward()
    if options.save:
        save_arrays(options.save, arrays | what_comes_out(net, options.backward))
    print_run(net, options.backward)
    return DONE
