"""What a backward makes of a diff: whether it sets it, adds to it, or leaves it as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WrittenDiff:
    """What backward made of a diff, twice: beginning with ``before``, and with ``other_before``."""

    name: str
    after: np.ndarray
    before: np.ndarray
    other_after: np.ndarray
    other_before: np.ndarray

    @property
    def added(self) -> np.ndarray:
        """Where backward has added to what was there; where it has done nothing, it has added 0."""
        change = self.other_before - self.before
        with np.errstate(invalid="ignore"):
            return np.abs(self.other_after - self.after - change) <= 1e-6 * np.abs(change)

    @property
    def untouched(self) -> np.ndarray:
        return (self.after == self.before) & (self.other_after == self.other_before)

    @property
    def is_untouched(self) -> bool:
        return bool(self.after.size and self.untouched.all())

    @property
    def gradient(self) -> np.ndarray:
        return np.where(self.added, self.after - self.before, self.after)

    def is_same(self, after: np.ndarray) -> bool:
        """Whether another backward that began with ``before`` gave the same."""
        return np.allclose(after, self.after, rtol=1e-9, atol=1e-12, equal_nan=True)

    def fault(self, is_nothing: bool) -> str:
        """What Caffe would not have it do; a bottom that nothing depends on may be left alone."""
        size = self.after.size
        if self.is_untouched:
            return "" if is_nothing else "backward gives it no gradient"
        if self.name.startswith("blobs"):
            set_ = size - np.count_nonzero(self.added)
            return "" if not set_ else "backward sets its diff where it must add (iter_size, shared weights)"
        left = np.count_nonzero(self.untouched)
        if left:
            return f"backward leaves {left} of {size} elements of its diff as they were, which Caffe does not set to 0"
        added = np.count_nonzero(self.added)
        return "backward adds to its diff where it must set it" if added else ""
