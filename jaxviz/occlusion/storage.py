"""Occlusion results on disk: one .npz file of arrays and a JSON text, without pickle."""

import contextlib
import json
import os
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz._version import __version__
from jaxviz.geometry import Grid
from jaxviz.result import Approximation, Occlusion
from jaxviz.segments import Segments

FORMAT = "jaxviz occlusion 1"


def save_occlusion(occlusion: Occlusion, path: str | Path) -> None:
    """Write a result to one .npz file, complete or not at all.

    Args:
        occlusion: the result.
        path: the file, replaced if it is there.

    Raises:
        OSError: the file cannot be written.
    """
    grid = occlusion.grid
    where = asdict(grid) if isinstance(grid, Grid) else {"groups": grid.groups}
    record = {
        "format": FORMAT,
        "version": __version__,
        "grid": where,
        "single": occlusion.single,
        "partial": occlusion.partial,
        "config": occlusion.config,
        "approximation": occlusion.approximation,
    }
    arrays = {"scores": occlusion.scores, "base": occlusion.base, "record": json.dumps(record)}
    if isinstance(grid, Segments):
        arrays["labels"] = grid.labels
    if occlusion.exact is not None:
        arrays["exact"] = occlusion.exact
    file = Path(path)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(part, file)
    except OSError as error:
        raise OSError(f"`path` must be writable: {file} is not ({error.strerror}).") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def load_occlusion(path: str | Path) -> Occlusion:
    """Read a result that `Occlusion.save` wrote.

    Args:
        path: the .npz file.

    Returns:
        The result, as it was saved.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is not such a result.

    Example:
        >>> load_occlusion("occlusion.npz").heatmap()  # doctest: +SKIP
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`path` must name a saved occlusion: there is none at {file}.")
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            record = json.loads(str(arrays["record"]))
            if record["format"] != FORMAT:
                raise ValueError(record["format"])
            labels = arrays["labels"] if "labels" in arrays else None
            return Occlusion(
                arrays["scores"],
                arrays["base"],
                _grid(record["grid"], labels),
                bool(record["single"]),
                bool(record["partial"]),
                tuple((str(key), str(value)) for key, value in record["config"]),
                arrays["exact"] if "exact" in arrays else None,
                Approximation(*measured) if (measured := record.get("approximation")) else None,
            )
    except (
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"`path` must be a file that Occlusion.save wrote: {file} is not."
        ) from error


def _grid(where: dict[str, Any], labels: np.ndarray | None) -> Grid | Segments:
    if labels is not None:
        return Segments(labels, tuple(tuple(group) for group in where["groups"]))
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in where.items()}
    return Grid(**fields)
