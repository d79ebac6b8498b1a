"""Files that are written whole or not at all: text, JSON, and arrays by name (``.npz``), which are read here too."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe_tools.errors import CaffeToolsError, NetError, one_line

if TYPE_CHECKING:
    import numpy as np

MOST_OF_NAME = 200
"""So many characters of a file's name are in that of its temporary file, for which file systems have 255 bytes."""


@contextmanager
def whole_file(path: str | os.PathLike, error_type: type[CaffeToolsError] = CaffeToolsError) -> Iterator[Path]:
    """The path of a temporary file to write, which takes the place of ``path`` when the block ends without an error.

    What is no plain file (a pipe, /dev/stdout) stays, and gets the bytes. Raises ``error_type`` where ``path`` cannot
    be written.
    """
    check_writable(path, error_type)
    target = Path(path)
    stays = is_special(target)
    folder = Path(tempfile.gettempdir()) if stays else target.parent
    temporary = folder / f".{target.name[:MOST_OF_NAME]}.{os.getpid()}.tmp"
    try:
        yield temporary
        if stays:
            with open(temporary, "rb") as written, open(target, "wb") as pipe:
                shutil.copyfileobj(written, pipe)
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise error_type(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_special(path: str | os.PathLike) -> bool:
    """Whether it is there and no plain file: a pipe, or a device such as /dev/stdout."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_writable(path: str | os.PathLike, error_type: type[CaffeToolsError] = CaffeToolsError) -> None:
    """Raise ``error_type`` where no file can be written at ``path``, whatever it holds."""
    text = os.fspath(path)
    folder = os.path.dirname(text)
    if not text:
        raise error_type("an empty file name: give it a name")
    if "\0" in text:
        raise error_type(f"cannot write {text!r}: a path holds no NUL")
    if os.path.isdir(text):
        raise error_type(f"cannot write {text}: is a directory")
    if not os.path.isdir(folder or os.curdir):
        raise error_type(f"cannot write {text}: there is no such folder")


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


def kind_of(head: bytes) -> str:
    """What a file that begins with ``head`` may be, in words."""
    kind = kind_by_magic(head)
    if kind is None:
        is_text = head and not any(byte < 9 or 13 < byte < 32 for byte in head)
        kind = "a text file?" if is_text else "another kind of file" if head else "the file is empty"
    return kind


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``; NetError where it is not there, is none, or holds pickled objects."""
    import numpy as np

    try:
        with open(path, "rb") as file:
            head = file.read(512)
        if not head.startswith((b"PK", b"\x93NUMPY")):
            raise NetError(f"{path} is no .npz ({kind_of(head)})")
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise NetError(f"{path} holds a single array (.npy), not an .npz with names: make one with numpy.savez")
        with stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        raise NetError(f"{path} is not there") from None
    except IsADirectoryError:
        raise NetError(f"{path} is a folder, not an .npz") from None
    except PermissionError as error:
        raise NetError(f"cannot read {path}: {error.strerror}") from None
    except NetError:
        raise
    except Exception as error:  # what zipfile, zlib and numpy raise over damaged files
        reason = one_line(error).partition(" when allow_pickle")[0]
        raise NetError(f"{path} is no .npz of plain arrays: {reason}") from None


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz``; nothing is left at ``path`` if that fails."""
    import numpy as np

    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
