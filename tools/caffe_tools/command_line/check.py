"""Show that the net and its ONNX export give the same numbers."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from caffe_tools.command_line.shared import AGREES, DISAGREES, add_net_options, load_net, output, progress, tolerance
from caffe_tools.errors import CaffeToolsError


def add(command: argparse.ArgumentParser) -> None:
    add_net_options(command)
    text = "compare both with a real Caffe, OpenCV before 5, or arrays (data/…, diff/…, pdiff/…)"
    command.add_argument("--against", metavar="caffe|opencv|F.npz", help=text)
    command.add_argument("--caffe-python", metavar="EXE", help="the Python that has the real Caffe (default: this one)")
    # RTOL and ATOL of check/compare.py; repeated, so that --help need not import it, and held equal by a test
    command.add_argument("--rtol", type=tolerance, default=1e-4, help="allowed over the largest value (%(default)g)")
    command.add_argument("--atol", type=tolerance, default=0.0, help="allowed besides (%(default)g)")
    command.add_argument("--json", type=output, metavar="F", help="write the comparison as JSON")
    command.add_argument("--report", type=output, metavar="F.html", help="write the printed tables as HTML")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.check import opencv_peer, peers
    from caffe_tools.check.check import Peer, check
    from caffe_tools.files import load_arrays, write_json, write_text
    from caffe_tools.report.page import check_as_html
    from caffe_tools.report.tables import print_check

    if options.caffe_python and options.against != "caffe":
        raise CaffeToolsError("--caffe-python goes with --against caffe")
    run_caffe = partial(peers.run_caffe, python=options.caffe_python or sys.executable)
    known: dict[str, Peer] = {"caffe": run_caffe, "opencv": opencv_peer.run_opencv}
    against = known.get(options.against) or (load_arrays(options.against) if options.against else None)
    with progress(f"checking {options.net}") as say:
        is_recorded = isinstance(against, dict)  # with the weights that its net had
        net = load_net(options, draws=not is_recorded)
        results = check(net, against, options.against or "", rtol=options.rtol, atol=options.atol, progress=say)
    if options.report:
        write_text(options.report, check_as_html(results))
    if options.json:
        write_json(options.json, [result.as_json() for result in results])
    print_check(results)
    return AGREES if all(result.agrees for result in results) else DISAGREES
