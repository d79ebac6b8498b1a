"""The console script ``caffe-layers``: one clear line where the tools' dependencies are missing.

``pip install caffe-layers`` brings numpy alone, since a Caffe build's Python can seldom hold onnx too; the script is
installed all the same. This module is all of the package that must import there, and on Python 3.8.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
NEEDED = ("onnx", "onnx_ir", "onnxruntime", "rich")


def main() -> int:
    """Run the command line; its exit code is returned, 2 where the tools cannot run here."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP; under nohup it is ignored
        if number is not None and signal.getsignal(number) is usual:
            signal.signal(number, interrupt)
    if sys.version_info < (3, 10):
        version = ".".join(map(str, sys.version_info[:2]))
        return refuse(f"the command line needs Python 3.10 or later, this is {version} (the layers run from 3.8 on)")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return refuse(f"{', '.join(missing)} not found: the command line needs pip install 'caffe-layers[tools]'")
    try:
        from caffe_tools.command_line.cli import main as command_line

        return command_line()
    except KeyboardInterrupt:
        return refuse("interrupted", INTERRUPTED)


def interrupt(number: int, frame: FrameType | None) -> None:
    """A KeyboardInterrupt; but while a module is imported the end at once, since a compiled module turns the exception
    into an ImportError, or loses it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            refuse("interrupted")
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def refuse(reason: str, code: int = 2) -> int:
    print(f"caffe-layers: {reason}", file=sys.stderr)
    return code
