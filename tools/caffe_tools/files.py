"""Files that are written whole or not at all: text, JSON, and arrays by name (``.npz``), which are read here too."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe_tools.errors import CaffeToolsError, NetError, one_line

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def whole_file(path: str | os.PathLike, error_type: type[CaffeToolsError] = CaffeToolsError) -> Iterator[Path]:
    """The path of a temporary file to write, which takes the place of ``path`` when the block ends without an error.

    Raises ``error_type`` where ``path`` cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = "there is no such folder" if not target.parent.is_dir() else error.strerror or error
        raise error_type(f"cannot write {path}: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_text(path, json.dumps(strict_json(value), indent=1, allow_nan=False) + "\n")


def strict_json(value: Any) -> Any:
    """``value`` with NaN and the infinities, for which JSON has no numbers, as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


_MAGIC = {
    b"\x89HDF": "an HDF5 file (Caffe's snapshot_format: HDF5)",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a zip archive (.npz, .pth)",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a .npy array",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"version https://git-lfs": "a Git LFS pointer (fetch the file with: git lfs pull)",
}


def kind_by_magic(head: bytes) -> str | None:
    """What a file that begins with ``head`` is, where its first bytes tell."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``; NetError where it is not there, is none, or holds pickled objects."""
    import numpy as np

    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise NetError(f"{path} holds a single array (.npy), not an .npz with names: make one with numpy.savez")
        with stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        raise NetError(f"{path} is not there") from None
    except IsADirectoryError:
        raise NetError(f"{path} is a folder, not an .npz") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise NetError(f"{path} is no .npz of plain arrays: {one_line(error)}") from None


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz``; nothing is left at ``path`` if that fails."""
    import numpy as np

    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
