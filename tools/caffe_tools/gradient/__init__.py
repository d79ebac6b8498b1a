"""Reverse-mode gradients of ONNX graphs.

``reverse.py`` walks the graph; the rules stand in ``arithmetic.py``, ``reductions.py``, ``linear.py`` (products and
convolutions), ``pooling.py`` and ``shapes.py`` (moving and picking elements), one per ONNX op.
``model.py`` does it for any ONNX model.
"""

from caffe_tools.gradient import arithmetic, linear, pooling, reductions, shapes
from caffe_tools.gradient.model import gradient_model
from caffe_tools.gradient.reverse import gradients
from caffe_tools.gradient.rules import RULES

__all__ = ["RULES", "arithmetic", "gradient_model", "gradients", "linear", "pooling", "reductions", "shapes"]
