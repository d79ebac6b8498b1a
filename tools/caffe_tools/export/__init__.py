"""A net as one ONNX model."""

from caffe_tools.export.export import Exported, export, save
from caffe_tools.export.options import ExportOptions

__all__ = ["ExportOptions", "Exported", "export", "save"]
