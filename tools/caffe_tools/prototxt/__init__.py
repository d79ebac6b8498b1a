"""Prototxt: its text, the messages that it holds, and one phase of the net that they describe."""

from caffe_tools.prototxt.text import load, parse, to_text

__all__ = ["load", "parse", "to_text"]
