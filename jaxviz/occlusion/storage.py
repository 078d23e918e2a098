"""Results on disk: one .npz file of arrays and a record in JSON, without pickle."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz._files import whole

NOT_A_RESULT = (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


def write_result(path: str | Path, arrays: Mapping[str, np.ndarray], record: Any) -> None:
    """Write arrays and a record to one .npz file, complete or not at all.

    Args:
        path: the file, replaced if it is there.
        arrays: by name, but for "record".
        record: what JSON can hold.

    Raises:
        OSError: the file cannot be written.
    """
    named: dict[str, Any] = {**arrays, "record": json.dumps(record)}
    try:
        with whole(path) as part, open(part, "wb") as stream:
            np.savez_compressed(stream, **named)
    except OSError as error:
        raise OSError(f"`path` must be writable: {path} is not ({error.strerror}).") from error


def read_record(path: str | Path) -> Any:
    """Read the record alone of what `write_result` wrote; see `read_result`."""
    return _read(path, ("record",))[1]


def read_result(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """Read what `write_result` wrote: the arrays by name, and the record.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file holds no arrays and record.
    """
    return _read(path, None)


def _read(path: str | Path, names: Sequence[str] | None) -> tuple[dict[str, np.ndarray], Any]:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`path` must name a saved result: there is none at {file}.")
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as found:
            arrays = {name: found[name] for name in names or found.files}
        return arrays, json.loads(str(arrays.pop("record")))
    except NOT_A_RESULT as error:
        raise ValueError(f"`path` must be a saved result: {file} is not.") from error
