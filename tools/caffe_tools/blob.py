"""Another name of ``caffe_tools.net.blob``."""

from caffe_tools.net.blob import Blob, Blobs

__all__ = ["Blob", "Blobs"]
