"""Files that are there whole or not at all: written beside their place, then moved into it."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Windows moves no file onto one that is open; a virus scanner lets go of it after a moment.
PAUSES = (0.05, 0.1, 0.2, 0.4)
# What some system does not allow in a file's name, and the names of Windows' devices.
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?", re.IGNORECASE)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`, on the same disk; it is removed at the end.

    Not by `tempfile`, whose folders nobody else may read, with all that is moved out of them.

    Raises:
        OSError: `folder` cannot be written to.
    """
    place = folder / f".part-{secrets.token_hex(8)}"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield where to write a file or folder of the same name; it becomes `path` at the end.

    If the block raises, `path` is as it was before.

    Raises:
        OSError: the folder of `path` cannot be written to, or `path` cannot be replaced.
    """
    path = Path(path)
    with scratch(path.parent) as place:
        part = place / path.name
        yield part
        try:
            move(part, path)
        except PermissionError as error:
            raise PermissionError(
                f"{path} cannot be replaced: close it where it is open, or give another name."
            ) from error


def move(part: Path, path: Path) -> None:
    """Move a file or folder onto another, if need be after a moment.

    Raises:
        PermissionError: what is there may not be replaced, or is open, which Windows forbids.
    """
    for pause in PAUSES:
        try:
            os.replace(part, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(part, path)


def file_name(text: str, taken: set[str]) -> str:
    """Return a text as a file's name, without a suffix, that every system allows.

    Args:
        text: of any letters.
        taken: names that are given, in small letters, since some systems know no others; this one
            is added.
    """
    plain = FORBIDDEN.sub("-", text).strip(" .") or "-"
    plain = f"{plain}_" if DEVICES.fullmatch(plain) else plain
    name, count = plain, 1
    while name.lower() in taken:
        count += 1
        name = f"{plain}-{count}"
    taken.add(name.lower())
    return name
