"""Write an old prototxt in today's form."""

from __future__ import annotations

import argparse

from caffe_tools import prototxt
from caffe_tools.command_line.shared import DONE, output
from caffe_tools.prototxt.upgrade import upgrade


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("net", metavar="OLD.prototxt")
    command.add_argument("-o", "--output", type=output, metavar="NEW.prototxt", help="default: standard output")


def run(options: argparse.Namespace) -> int:
    text = prototxt.to_text(upgrade(prototxt.load(options.net)))
    if options.output:
        from caffe_tools.files import write_text  # brings numpy

        write_text(options.output, text)
    else:
        print(text, end="")
    return DONE
