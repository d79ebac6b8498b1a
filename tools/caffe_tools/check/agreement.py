"""Whether a gradient is that of a function: by central differences, and where these are too coarse, by better ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from caffe_tools.check import differences
from caffe_tools.check.differences import Derivative, Function

TOLERANCE = 1e-6
"""What a gradient may be off by, over the blob's largest."""
LARGEST_BLOB = 2000
"""Of larger blobs this many elements, drawn at random, are checked."""
TOO_COARSE = 1e-2
"""A derivative that is known worse than so, over the blob's largest, proves nothing."""
FLOAT32 = (1e-10, 1e-4)
"""Rounding between these, over the values, is that of float32."""


@dataclass(frozen=True)
class Agreement:
    """The element that is furthest off, and whether all are near enough; ``note`` says why, or why not."""

    where: tuple[int, ...]
    backward: float
    difference: float
    relative: float
    agrees: bool
    note: str = ""

    @property
    def is_nothing(self) -> bool:
        """Whether the function does not depend on the array, as far as can be seen."""
        return self.agrees and self.difference == 0


class Judge:
    """Judges gradients of ``function`` by ``data``, which it changes and restores.

    ``gradient_again`` is the gradient as ``data`` stands, ``size`` how large the numbers are that the function adds,
    and ``rounded`` what they are known to be rounded by.
    """

    def __init__(
        self,
        data: np.ndarray,
        function: Function,
        gradient_again: Callable[[], np.ndarray],
        size: float,
        rounded: float,
        random: np.random.Generator,
    ) -> None:
        self.shape, self.data = data.shape, data.reshape(-1)
        self.function, self.gradient_again, self.random = function, gradient_again, random
        self.size, self.rounded = size, rounded

    def judge(self, gradient: np.ndarray) -> Agreement:
        """Whether ``gradient`` is the one."""
        elements = np.arange(self.data.size)
        if self.data.size > LARGEST_BLOB:
            elements = np.sort(self.random.choice(self.data.size, LARGEST_BLOB, replace=False))
        if not elements.size:
            return Agreement((), 0.0, 0.0, 0.0, True)
        backward = gradient.reshape(-1)[elements]
        numeric = np.array([self._difference(int(element)) for element in elements])
        scale = max(float(np.abs(numeric).max()), float(np.abs(backward).max()))
        gaps = np.abs(backward - numeric)
        wrong = np.flatnonzero(~(gaps <= TOLERANCE * scale))
        note, agrees = "", not wrong.size
        if not np.isfinite(scale):
            at = int(np.argmax(~np.isfinite(gaps)))
            note = "not finite: " + ("the layer's forward" if not np.isfinite(numeric).all() else "its gradient")
        elif wrong.size:
            at, note, agrees = self._look_closer(elements, backward, numeric, wrong, scale)
        else:
            at = int(gaps.argmax())
        gap = abs(backward[at] - numeric[at])
        where = tuple(int(i) for i in np.unravel_index(int(elements[at]), self.shape))
        relative = float(gap / scale) if gap else 0.0
        return Agreement(where, float(backward[at]), float(numeric[at]), relative, agrees, note)

    def _difference(self, element: int) -> float:
        return differences.central_difference(self.data, element, self.function)

    def _look_closer(
        self, elements: np.ndarray, backward: np.ndarray, numeric: np.ndarray, wrong: np.ndarray, scale: float
    ) -> tuple[int, str, bool]:
        """The place of the first element that no rounding, step or kink explains, or else of the furthest one; what
        is to be said, and whether all agree. Better differences are written into ``numeric``."""
        order = wrong[np.argsort(-np.abs(backward - numeric)[wrong])]
        rough = max(differences.roughness(self.data, elements[order], self.function, self.random), self.rounded)
        rough_backward = differences.roughness(self.data, elements[order], self.gradient_again, self.random)
        kinks, coarse = 0, 0
        for at in order:
            found = self._better(int(elements[at]), rough, scale)
            allowed = TOLERANCE * scale + found.bound + 4 * rough_backward
            if abs(backward[at] - found.value) <= allowed:
                numeric[at] = found.value
                coarse += allowed > TOO_COARSE * scale
                continue
            pair = differences.sides(self.data, int(elements[at]), self.function)
            slack = 1e-4 * scale
            if pair and pair[0] - slack <= backward[at] <= pair[1] + slack:
                kinks += 1
                numeric[at] = backward[at]
                continue
            numeric[at] = found.value
            return int(at), "", False
        furthest = int(np.abs(backward - numeric).argmax())
        if coarse > 0.1 * elements.size:
            return furthest, f"it is rounded too coarsely for differences to tell (by {rough:.1e})", False
        return furthest, self._why(rough, rough_backward, scale, kinks), True

    def _better(self, element: int, rough: float, scale: float) -> Derivative:
        return differences.exact_derivative(self.data, element, self.function, rough, TOO_COARSE * scale)

    def _why(self, rough: float, rough_backward: float, scale: float, kinks: int) -> str:
        if kinks:
            return f"{kinks} of its elements at a kink, where the gradient lies between those of both sides"
        share = max(rough / self.size if self.size else 0.0, rough_backward / scale)
        if share < FLOAT32[0]:
            return ""
        return "within the rounding of float32" if share < FLOAT32[1] else f"within its rounding (by {share:.0e})"
