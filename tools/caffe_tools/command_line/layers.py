"""List the layers, or show one with its parameters."""

from __future__ import annotations

import argparse

from caffe_tools.command_line.shared import DONE


def add(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", metavar="NAME")


def run(options: argparse.Namespace) -> int:
    from caffe_tools.report import catalogue
    from caffe_tools.report.tables import make_console

    console = make_console()
    if options.name is None:
        catalogue.print_all(console)
    else:
        catalogue.print_one(console, options.name)
    return DONE
