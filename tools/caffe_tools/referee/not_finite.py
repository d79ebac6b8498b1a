"""Where a graph is not finite on extreme scores: from which score on, and what in it may be why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from caffe_tools.errors import GraphError
from caffe_tools.referee.foreign_graph import ForeignGraph

LARGEST_SCORE = 200.0
MADE_OF = {"Sigmoid": "sigmoid", "Softmax": "softmax", "Exp": "exponential"}


def why_not_finite(graph: ForeignGraph, feeds: Mapping[str, np.ndarray], scores: str, tensor: str, of: str) -> str:
    """``sigmoid, then log: not finite beyond a score of 17`` of ``tensor``, on feeds where it is not finite; they hold
    extreme ``scores``, or what is the same in another shape, as ``of``."""
    beyond = _score(graph, feeds, tensor, of)
    limit = f" beyond a score of {beyond:.0f}" if beyond else " on extreme scores"
    return f"{_what(graph, scores, tensor)}not finite{limit}"


def _score(graph: ForeignGraph, feeds: Mapping[str, np.ndarray], tensor: str, of: str) -> float:
    """The size of the scores from which on the tensor is not finite, by halving; 0 where it is finite throughout."""
    largest = np.max(np.abs(feeds[of]))

    def is_finite(size: float) -> bool:
        scores = np.sign(feeds[of]) * np.minimum(np.abs(feeds[of]), size)
        try:
            found = graph.run({**feeds, of: scores.astype(feeds[of].dtype)}, [tensor])[tensor]
        except GraphError:
            return False
        return bool(np.isfinite(found).all())

    low, high = 0.0, float(min(largest, LARGEST_SCORE))
    if is_finite(high) or not is_finite(low):
        return 0.0
    while high - low > 0.25:
        middle = (low + high) / 2
        low, high = (middle, high) if is_finite(middle) else (low, middle)
    return float(np.floor(low))


def _what(graph: ForeignGraph, scores: str, tensor: str) -> str:
    """What a logarithm on the way from the scores to the tensor is taken of."""
    behind = graph.computed_from(tensor)
    makers = {name: graph.makers[name] for name in behind if name in graph.makers}
    for name, node in makers.items():
        if node.op_type == "Log" and scores in graph.computed_from(name):
            types = {graph.makers[one].op_type for one in graph.computed_from(name) if one in graph.makers}
            for op_type, what in MADE_OF.items():
                if op_type in types:
                    return f"{what}, then log: "
    types = {node.op_type for name, node in makers.items() if scores in graph.computed_from(name)}
    return "the exponential overflows: " if "Exp" in types else ""
