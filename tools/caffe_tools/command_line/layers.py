"""List the layers, show one with its parameters, or tell which types of a net are covered."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import DONE


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", metavar="NAME|NET.prototxt")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.report import catalogue
    from caffe_tools.report.tables import make_console

    console = make_console()
    if options.name is None:
        catalogue.print_all(console)
    elif options.name.endswith("txt"):
        from caffe_tools.report.net_types import print_types

        print_types(console, options.name)
    else:
        catalogue.print_one(console, options.name)
    return DONE
