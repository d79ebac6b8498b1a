"""The embedded net: pycaffe's ``Net``, run layer by layer without Caffe."""

from caffe_tools.net.net import TEST, TRAIN, Net

__all__ = ["TEST", "TRAIN", "Net"]
