"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caffe_tools.errors import CaffeToolsError


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """The path of a temporary file to write, which takes the place of ``path`` when the block ends without an error.

    Raises CaffeToolsError where ``path`` cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = "there is no such folder" if not target.parent.is_dir() else error.strerror or error
        raise CaffeToolsError(f"cannot write {path}: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)
