"""Caffe's solvers: a net trained layer by layer or in its exported graph."""

from caffe_tools.training.events import Evaluation
from caffe_tools.training.training import Training

__all__ = ["Evaluation", "Training"]
