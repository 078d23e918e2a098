"""Images from files, in the shape and the units that a model takes.

A picture is float32 (height, width, channel) in [0, 1], 0 black and 1 white. Files are read with
Pillow, see `jaxviz.images.decode`. Arrays (.npy, .npz) are pictures when they are whole numbers of
one byte or two, 0 black and the largest white, or floats in [0, 1]. Every picture is stretched to
the model's height and width (bilinear, anti-aliased), and turned grey (ITU-R 601) or repeated to
the model's channels. What makes the model's units of it is in `jaxviz.images.preprocessing`.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxviz.images.arrays import SUFFIXES as ARRAYS
from jaxviz.images.arrays import check_values, open_arrays
from jaxviz.images.decode import SUFFIXES, image_files, read_image
from jaxviz.images.resize import resize

DIGITS = "digits"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Pictures(NamedTuple):
    """What was read: `values` (N, H, W, C), a name for each, and `labels` (N,) where known."""

    values: np.ndarray
    names: list[str]
    labels: np.ndarray | None


def read_pictures(
    sources: Sequence[str | Path], shape: tuple[int, int, int], *, limit: int | None = None
) -> Pictures:
    """Read images in the order given, folders in the order of their file names.

    Files of a folder that cannot be read are left out, and a warning counts them; a file that was
    named must be an image.

    Args:
        sources: image files, folders of such, .npy or .npz files, or the word "digits" for the
            UCI digits that scikit-learn ships (`load_digits("test")`). Which arrays of a file are
            meant, `jaxviz.images.arrays` tells.
        shape: (height, width, channel) of the model's input; channel 1 or 3.
        limit: the most images to read; None reads all.

    Returns:
        The pictures, (N, height, width, channel).

    Raises:
        ValueError: if there is no image, a file is none, or an array is no picture.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "grey.npy"
        >>> np.save(file, np.full((8, 8), 51, np.uint8))
        >>> read_pictures([file], (4, 4, 3)).values.shape
        (1, 4, 4, 3)
    """
    check_channels(shape)
    values: list[np.ndarray] = []
    names: list[str] = []
    labels: list[int | None] = []
    bad: list[str] = []
    for source in sources:
        for name, label, load in picture_entries(source):
            if limit is not None and len(values) >= limit:
                break
            try:
                picture = load()
            except ValueError as error:
                if not Path(source).is_dir():
                    raise
                bad.append(str(error))
                continue
            values.append(fit_picture(picture, shape))
            names.append(name)
            labels.append(label)
    if not values:
        where = ", ".join(map(str, sources)) or "an empty list"
        raise ValueError(
            f"there is no image in {where}{bad and f' that can be read: {bad[0]}' or '.'}"
        )
    if bad:
        warnings.warn(_left_out(bad, len(values)), stacklevel=2)
    known = None if None in labels else np.array(labels, np.int64)
    return Pictures(np.stack(values), names, known)


def check_channels(shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless pictures can be turned into images of that shape."""
    if shape[-1] not in (1, 3):
        raise ValueError(f"the model must take 1 or 3 channels to be shown images: got {shape}.")


def _left_out(bad: Sequence[str], good: int) -> str:
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"{len(bad)} of {len(bad) + good} images are left out: {bad[0].rstrip('.')}{more}."


Entry = tuple[str, int | None, Callable[[], np.ndarray]]


def picture_entries(source: str | Path) -> list[Entry]:
    """Return a name, a label or None, and a function that reads it, for each picture."""
    path = Path(source)
    if str(source) == DIGITS and not path.exists():
        from jaxviz.datasets import load_digits

        images, labels = load_digits("test")
        return _array_entries(images, labels, Path(DIGITS))
    if path.is_dir():
        files = image_files(path)
        if not files:
            deeper = image_files(path, subfolders=True)
            hint = (
                f"; there are {len(deeper)} in its subfolders: name one of these" if deeper else ""
            )
            raise ValueError(f"the folder {path} holds no image (looked for {_suffixes()}){hint}.")
        return [entry for file in files for entry in picture_entries(file)]
    if not path.exists() and has_magic(str(source)):  # which shells of Windows leave as they are
        matches = sorted(map(Path, glob(str(source))), key=lambda file: file.parts)
        if matches:
            return [entry for file in matches for entry in picture_entries(file)]
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path}.")
    if path.suffix.lower() in ARRAYS:
        return _array_entries(*_read_arrays(path), path)
    return [(path.name, None, lambda: read_image(path))]


def _array_entries(images: np.ndarray, labels: np.ndarray | None, path: Path) -> list[Entry]:
    return [
        (f"{path.name}[{i}]", label, partial(_picture, images, i, path))
        for i, label in enumerate([None] * len(images) if labels is None else labels.tolist())
    ]


def _picture(images: np.ndarray, index: int, path: Path) -> np.ndarray:
    picture = np.asarray(images[index])
    check_values(picture, f"{path}[{index}]")
    return picture


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    images, labels = open_arrays(path)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise ValueError(
            f"{path} must hold images (N, height, width) with 1 or 3 channels: got {images.shape}."
        )
    return images, labels


def fit_picture(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a picture in [0, 1] of a model's shape, from whole numbers or floats."""
    check_channels(shape)
    white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    picture = image.astype(np.float32) / np.float32(white)
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.shape[-1] == 3 and shape[-1] == 1:
        picture = picture @ _LUMA[:, None]
    if picture.shape[:2] != shape[:2]:
        planes = [resize(plane, shape[:2]) for plane in np.moveaxis(picture, -1, 0)]
        picture = np.clip(np.stack(planes, -1), 0, 1)
    return np.repeat(picture, shape[-1] // picture.shape[-1], axis=-1)


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))
