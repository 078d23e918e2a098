"""Read a saved result of any kind: the file itself tells which."""

from os import PathLike
from pathlib import Path

from jaxviz.attribution.result import FORMAT as ATTRIBUTION
from jaxviz.attribution.result import Attribution, load_attribution
from jaxviz.occlusion.result import FORMAT as OCCLUSION
from jaxviz.occlusion.result import Occlusion, load_occlusion
from jaxviz.occlusion.storage import read_record

READERS = {OCCLUSION: load_occlusion, ATTRIBUTION: load_attribution}


def load(path: str | Path) -> Occlusion | Attribution:
    """Read a result that `save` wrote.

    Args:
        path: the .npz file.

    Returns:
        The result, as it was saved.

    Raises:
        TypeError: `path` is no name of a file.
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no saved result, or one of a later version.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, jaxviz as jv
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "map.npz"
        >>> jv.attribution.saliency(lambda x: x.sum((1, 2)), np.ones((2, 2, 1))).save(path)
        >>> load(path)
        Attribution(saliency of 1 image 2×2, class 0 of 1)
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"`path` must be a file's name: got {path!r}.")
    record = read_record(path)
    kind = record.get("format") if isinstance(record, dict) else None
    if kind not in READERS:
        raise ValueError(f"`path` must be a saved result: {path} is {kind or 'none'}.")
    return READERS[kind](path)
