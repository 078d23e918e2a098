"""Arrays of images, and NumPy's files of them: which one is meant, mapped instead of read.

An .npy holds one array. An .npz holds one, or several that are known by their names, as those of
`keras.datasets` are: `images` and perhaps `labels`, `x_test` and `y_test`, `x` and `y`, `x_train`
and `y_train`, in this order. Pickled objects are never read.
"""

import shutil
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".npy", ".npz")
LABELS = {"images": "labels", "x_test": "y_test", "x": "y", "x_train": "y_train"}


def open_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images of a file, mapped, and a label for each if there are such.

    Args:
        path: an .npy or .npz file.

    Returns:
        (N, ...), see `as_batch`; and whole numbers (N,), or None.

    Raises:
        ValueError: it cannot be read, holds no array of images, or labels do not fit to them.
    """
    try:
        if path.suffix.lower() == ".npy":
            images, labels = np.load(path, mmap_mode="r", allow_pickle=False), None
        else:
            with zipfile.ZipFile(path) as archive:
                images, labels = _members(archive)
    except _NotFound as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # NumPy raises half a dozen types on damaged files
        raise ValueError(f"{path} cannot be read as a NumPy file: {error}.") from error
    images = as_batch(images)
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"{path} must hold one whole number per image as labels: got {labels.dtype} "
            f"{labels.shape} for {len(images)} images."
        )
    return images, labels


def as_batch(images: Any) -> Any:
    """Return images (N, ...): what looks like a single one, (H, W) or (H, W, 1 or 3), is one.

    Example:
        >>> as_batch(np.zeros((5, 8, 3))).shape, as_batch(np.zeros((5, 8, 8))).shape
        ((1, 5, 8, 3), (5, 8, 8))
    """
    single = images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in (1, 3))
    return images[None] if single else images


def check_values(array: np.ndarray, name: str) -> None:
    """Raise ValueError unless they are pixels: of one byte or two, or floats in [0, 1]."""
    if array.dtype in (np.uint8, np.uint16):
        return
    low, high = (float(end) for end in (array.min(), array.max())) if array.size else (0.0, 1.0)
    if array.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name} must hold bytes, or floats in [0, 1]: got {array.dtype} from {low:g} to"
            f" {high:g}."
        )


class _NotFound(Exception):
    """An archive holds no array that is known to be of images."""


def _members(archive: zipfile.ZipFile) -> tuple[np.ndarray, np.ndarray | None]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    only = names[0] if len(names) == 1 else None
    picked = next((key for key in LABELS if key in names), only)
    if picked is None:
        known = ", ".join(f"`{key}`" for key in LABELS)
        raise _NotFound(f"must hold {known}, or one array: got {', '.join(names) or 'none'}.")
    labels = LABELS.get(picked)
    if labels not in names:
        return _mapped(archive, f"{picked}.npy"), None
    with archive.open(f"{labels}.npy") as member:
        return _mapped(archive, f"{picked}.npy"), np.lib.format.read_array(member)


def _mapped(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    # A compressed array cannot be read from the middle: it is unpacked to a file that goes away
    # with the array, so that memory stays bounded.
    handle, name = tempfile.mkstemp(suffix=".npy")
    unpacked = Path(name)
    try:
        with open(handle, "wb") as whole, archive.open(member) as packed:
            shutil.copyfileobj(packed, whole, 1 << 20)
        mapped = np.load(unpacked, mmap_mode="r", allow_pickle=False)
    except BaseException:
        unpacked.unlink()
        raise
    if not _removed(unpacked):  # Windows keeps what is mapped: then when that ends
        weakref.finalize(mapped._mmap, _removed, unpacked)
    return mapped


def _removed(file: Path) -> bool:
    try:
        file.unlink()
    except OSError:
        return False
    return True
