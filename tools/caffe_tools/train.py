"""Training under the name that the documentation of 0.1 gave it: ``training`` is its place."""

from caffe_tools.training import Evaluation, Training

__all__ = ["Evaluation", "Training"]
