"""What became of weights that a net was given: Caffe's log tells it line by line ("Ignoring source layer …")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caffe_tools.errors import few_quoted


class WeightsWarning(UserWarning):
    """Some layer of the net or of the file of weights is left out."""


@dataclass(frozen=True)
class Loaded:
    """What a net took from a file of weights, by the names of layers; only layers with learnable blobs count.

    taken: those of the net that the file has. at_fillers: those of the net that still keep what their fillers drew,
    as nothing that was loaded or fed so far has all of their blobs. ignored: those of the file that the net has not.
    learnable: how many the net has.
    """

    source: str
    taken: tuple[str, ...]
    at_fillers: tuple[str, ...]
    ignored: tuple[str, ...]
    learnable: int

    @property
    def is_complete(self) -> bool:
        """Whether every layer has got its weights, and all of the file found its place."""
        return not self.at_fillers and not self.ignored

    @property
    def fits_nothing(self) -> bool:
        """Whether the file gave nothing, though layers of the net wait for weights."""
        return not self.taken and bool(self.at_fillers)

    def __str__(self) -> str:
        if self.fits_nothing:
            held = f"nothing in the net takes {_layers(self.ignored)} of the file" if self.ignored else "it holds none"
            return f"{self.source} has weights for no layer of the net: {held}; {_at_fillers(self.at_fillers)}"
        return account([self.source], self.learnable, self.at_fillers, self.ignored)


def account(sources: Sequence[str], learnable: int, at_fillers: Sequence[str], ignored: Sequence[str]) -> str:
    """One line for all the weights that a net was given."""
    got = learnable - len(at_fillers)
    head = "the net has no learnable layer" if not learnable else _got(got, learnable)
    parts = [f"{head} from {', '.join(sources)}" if learnable else f"{', '.join(sources)}: {head}"]
    if at_fillers:
        parts.append(_at_fillers(at_fillers))
    if ignored:
        parts.append(f"nothing in the net takes {_layers(ignored)} of the file")
    return "; ".join(parts)


def _got(got: int, learnable: int) -> str:
    if got < learnable:
        return f"{got} of {learnable} learnable layers got weights"
    return f"all {learnable} learnable layers got weights" if learnable > 1 else "the learnable layer got its weights"


def _at_fillers(names: Sequence[str]) -> str:
    return f"{_layers(names)} {'keeps what its filler' if len(names) == 1 else 'keep what their fillers'} drew"


def _layers(names: Sequence[str]) -> str:
    return f"layer{'s' if len(names) > 1 else ''} {few_quoted(names)}"
