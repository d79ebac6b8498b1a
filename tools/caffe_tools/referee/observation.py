"""What was asked on one probe, and what the graph and the layer answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from caffe_tools.referee.loss_formulas import Question

LOSS = ""
"""The key of the loss among the tensors; gradients have their names."""
EXTREME = 30
"""Scores beyond are extreme."""


@dataclass
class Observation:
    """One probe: what the loss was asked, what the graph gave (by tensor), and how far off is still equal."""

    probe: str
    question: Question
    found: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    tolerance: Mapping[str, float]
    """Absolute, by tensor."""
    spread: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    """From a gradient by the scores to the gradients that are claimed."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why those tensors that are not finite are so."""

    def differs(self, tensor: str) -> bool:
        gaps = np.abs(np.asarray(self.found[tensor], np.float64) - self.expected[tensor])
        return not bool(np.max(gaps, initial=0) <= self.tolerance[tensor])

    @property
    def has_soft_targets(self) -> bool:
        """Whether labels of several classes are other than 0 and 1."""
        question = self.question
        if question.target != "multi_label":
            return False
        known = [0, 1, question.params.get("ignore_label")]
        return not all(value in known for value in np.unique(question.labels).tolist())

    @property
    def is_extreme(self) -> bool:
        scores = np.abs(self.question.scores)
        if self.question.layer.scores_are_probabilities:
            return bool((scores == 0).any())
        return bool(np.max(scores, initial=0) > EXTREME)
