"""The command line under the name that the documentation of 0.1 gave it: ``command_line`` is its place."""

from caffe_tools.command_line.cli import main

__all__ = ["main"]
