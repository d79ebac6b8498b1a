"""Caffe's solvers: a net trained layer by layer or in its exported graph."""

from caffe_tools.training.training import Evaluation, Training

__all__ = ["Evaluation", "Training"]
