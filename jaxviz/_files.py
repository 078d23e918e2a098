"""Files that are there whole or not at all: written beside their place, then moved into it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`, on the same disk; it is removed at the end.

    Raises:
        OSError: `folder` cannot be written to.
    """
    place = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield where to write a file or folder of the same name; it becomes `path` at the end.

    If the block raises, `path` is as it was before.

    Raises:
        OSError: the folder of `path` cannot be written to.
    """
    path = Path(path)
    with scratch(path.parent) as place:
        part = place / path.name
        yield part
        os.replace(part, path)
