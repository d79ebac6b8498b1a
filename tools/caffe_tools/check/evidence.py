"""Which values of a comparison say nothing: two runs that both give zeros agree whatever they compute."""

from __future__ import annotations

import numpy as np

from caffe_tools.errors import few_quoted
from caffe_tools.net.keys import DATA, Arrays


def proves_nothing(arrays: Arrays) -> list[str]:
    """The blobs (``data/…``) that are all 0, or all equal though they have several elements."""
    return [name for name, data in DATA.of(arrays).items() if data.size and _is_one_number(data)]


def _is_one_number(data: np.ndarray) -> bool:
    first = data.reshape(-1)[0]
    return (data.size > 1 or first == 0) and np.array_equal(data, np.broadcast_to(first, data.shape), equal_nan=True)


def note(names: list[str]) -> list[str]:
    """What to say of such blobs."""
    if not names:
        return []
    if len(names) == 1:
        return [f"blob {names[0]!r} proves nothing: all of it is 0 or the same number"]
    return [f"blobs {few_quoted(names)} prove nothing: all of each is 0 or the same number"]
