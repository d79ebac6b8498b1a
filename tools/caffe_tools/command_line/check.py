"""``caffe-layers check``: the net layer by layer against its ONNX export, and both against a reference."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from caffe_tools.command_line.shared import (
    AGREES,
    DISAGREES,
    Subparsers,
    add_net_command,
    load_net,
    progress,
    tolerance,
)
from caffe_tools.errors import CaffeToolsError

if TYPE_CHECKING:
    import numpy as np

    from caffe_tools.check.check import Peer


def add(subparsers: Subparsers) -> None:
    text = "show that the net and its ONNX export give the same numbers"
    command = add_net_command(subparsers, "check", text, run)
    command.add_argument(
        "--against",
        metavar="caffe|opencv|F.npz",
        help="compare both with a real Caffe, OpenCV before 5, or arrays (data/…, diff/…, pdiff/…)",
    )
    command.add_argument("--caffe-python", metavar="EXE", help="the Python that has the real Caffe (default: this one)")
    # RTOL and ATOL of check/compare.py; repeated, so that --help need not import it, and held equal by a test
    command.add_argument("--rtol", type=tolerance, default=1e-4, help="allowed over the largest value (%(default)g)")
    command.add_argument("--atol", type=tolerance, default=0.0, help="allowed besides (%(default)g)")
    command.add_argument("--json", metavar="F", help="write the comparison as JSON")
    command.add_argument("--report", metavar="F.html", help="write the printed tables as HTML")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.check.check import check
    from caffe_tools.files import write_json, write_text
    from caffe_tools.report.page import check_as_html
    from caffe_tools.report.tables import print_check

    against = _reference(options)
    with progress(f"checking {options.net}") as say:
        net = load_net(options)
        results = check(net, against, options.against or "", rtol=options.rtol, atol=options.atol, progress=say)
    if options.report:
        write_text(options.report, check_as_html(results))
    if options.json:
        write_json(options.json, [result.as_json() for result in results])
    print_check(results)
    return AGREES if all(result.agrees for result in results) else DISAGREES


def _reference(options: argparse.Namespace) -> Mapping[str, np.ndarray] | Peer | None:
    """What ``--against`` names: arrays, or a peer that runs the net."""
    from caffe_tools.check import peers
    from caffe_tools.files import load_arrays

    if options.caffe_python and options.against != "caffe":
        raise CaffeToolsError("--caffe-python goes with --against caffe")
    if options.against == "caffe":
        return partial(peers.run_caffe, python=options.caffe_python or sys.executable)
    if options.against == "opencv":
        return peers.run_opencv
    return load_arrays(options.against) if options.against else None
