"""Where many images come from: one image at a time, by its number, read when it is needed.

A source has a length and gives image i as an array (height, width, channel); no more than the
images asked for is ever in memory. Images are asked for from several threads at once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jaxviz._choices import Preprocess as PreprocessName
from jaxviz.images.arrays import SUFFIXES as ARRAYS
from jaxviz.images.arrays import as_batch, open_arrays
from jaxviz.images.decode import SUFFIXES, image_files, read_image
from jaxviz.images.files import check_channels, fit_picture
from jaxviz.images.preprocessing import Preprocessing, as_pictures, named_preprocessing
from jaxviz.jaxpr.layout import turned, with_channels_last
from jaxviz.scale.store import as_bytes
from jaxviz.scoring.arguments import checked_images
from jaxviz.scoring.scorer import image_shape_of

Preprocess = Preprocessing | Callable[[np.ndarray], np.ndarray]
SAMPLES = 4  # images by which a source is known again


class Sized(Protocol):
    """What can be asked for its length and for element i: a list, a grain data source, …"""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Source:
    """Images by number.

    Attributes:
        elements: what holds them.
        read: an element -> an array (H, W, C).
        names: a name for each image, where there are names.
        units: how pixels were turned into the model's units, in words.
    """

    elements: Sized
    read: Callable[[Any], np.ndarray]
    names: tuple[str, ...] | None = None
    units: str = "as given"

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read(self.elements[index])


SourceLike = Source | str | Path | np.ndarray | jax.Array | Sized


def open_source(
    source: SourceLike,
    *,
    image_shape: tuple[int, int, int] | None = None,
    preprocess: Preprocess | None = None,
) -> Source:
    """Open a source of images.

    Args:
        source: an array (N, H, W, C), (N, H, W) of grey images, or a single image, see
            `jaxviz.images.arrays.as_batch`; an .npy or .npz file of one, which is mapped; a folder,
            with its subfolders, whose image files are taken in the order of their names; anything
            with a length and elements, such as a list or a grain data source, whose elements are
            images, tuples that begin with one, or dictionaries with the key "image"; or a `Source`,
            which is returned.
        image_shape: (height, width, channel) that image files are read in: values in [0, 1],
            stretched (bilinear, anti-aliased), made grey or repeated to the channels. Files need
            it.
        preprocess: applied to every image: a function (1, H, W, C) -> (1, H, W, C) of what was
            read; or a `Preprocessing`, which takes pictures, so that elements must be bytes or
            floats in [0, 1]; None: none.

    Returns:
        The source.

    Raises:
        ValueError: there are no images, a file holds none, or a `Source`, which reads for itself,
            shall be preprocessed.
        TypeError: the source has no length.

    Example:
        >>> len(open_source(np.zeros((5, 8, 8, 1))))
        5
    """
    if isinstance(source, Source):
        if preprocess is not None:
            raise ValueError(
                "`preprocess` must be None for a `Source`, which reads images by itself: let its"
                " `read` do it."
            )
        return source
    if isinstance(source, str | Path) and Path(source).is_dir():
        return _folder(Path(source), image_shape, preprocess)
    elements: Any = _array_of(Path(source)) if isinstance(source, str | Path) else source
    if isinstance(elements, np.ndarray | jax.Array):
        elements = as_batch(elements)
        elements = elements[..., None] if elements.ndim == 3 else elements
        if elements.ndim != 4:
            raise ValueError(f"`source` must hold images (N, H, W, C): got shape {elements.shape}.")
    elif not (hasattr(elements, "__len__") and hasattr(elements, "__getitem__")):
        raise TypeError(
            "`source` must be an array, a file, a folder, or have a length and elements:"
            f" got a {type(elements).__name__}."
        )
    if not len(elements):
        raise ValueError("`source` must hold at least one image: it is empty.")
    return Source(elements, _Reader(_image_of, preprocess), None, describe(preprocess))


def describe(preprocess: Preprocess | None) -> str:
    """Return in words what a preprocessing does, for the record of a run."""
    if preprocess is None:
        return "as given"
    if isinstance(preprocess, Preprocessing):
        return preprocess.describe()
    return getattr(preprocess, "__qualname__", type(preprocess).__name__)


@dataclass(frozen=True)
class Images:
    """A source whose images are checked: floats, finite, of one shape.

    Attributes:
        source: where they come from.
        samples: some that can be read, spread over the source, by number; all of the shape and the
            dtype that the images have.
        f: the scorer, which may tell that it takes channels first, see `with_channels_last`.
    """

    source: Source
    samples: dict[int, np.ndarray]
    f: Any = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def template(self) -> np.ndarray:
        """An image, whose shape and dtype all have."""
        return next(iter(self.samples.values()))

    def read(self, index: int) -> np.ndarray | str:
        """Return image `index`, (H, W, C), or why it is bad."""
        image = _checked(self.source, index)
        image = image if isinstance(image, str) else turned(self.f, image)
        if isinstance(image, str) or image.shape == self.template.shape:
            return image
        return f"its shape is {image.shape}, not {self.template.shape} as that of the others"

    def name(self, index: int) -> str:
        """Return what to call an image."""
        names = self.source.names
        return f"image {index}" + (f" ({names[index]})" if names else "")

    def identity(self) -> dict[str, Any]:
        """Return what tells another source: its size, its names, and the SHA-256 of the samples."""
        names = self.source.names
        return {
            "images": len(self),
            "shape": self.template.shape,
            "units": self.source.units,
            "names": hashlib.sha256(as_bytes("\n".join(names))).hexdigest() if names else None,
            "samples": {
                str(i): hashlib.sha256(f"{image.dtype}".encode() + image.tobytes()).hexdigest()
                for i, image in self.samples.items()
            },
        }


def check_source(source: Source, f: Any = None) -> Images:
    """Read some images of a source, so that its shape is known.

    Args:
        source: the images.
        f: the scorer, if it is known.

    Returns:
        The images; the first that can be read tells the shape.

    Raises:
        ValueError: not one image can be read, or they look channels first.

    Example:
        >>> sorted(check_source(open_source(np.zeros((9, 2, 2, 1)))).samples)
        [0, 3, 5, 8]
    """
    spread = sorted({round(i) for i in np.linspace(0, len(source) - 1, SAMPLES)})
    found = {i: _checked(source, i) for i in spread}
    good = {i: image for i, image in found.items() if not isinstance(image, str)}
    if not good:
        for i in range(len(source)):
            image = _checked(source, i)
            if not isinstance(image, str):
                good = {i: image}
                break
        else:
            raise ValueError(
                f"`source` must hold images: not one of {len(source)} can be read; of the first:"
                f" {found[0]}"
            )
    first = next(iter(good.values()))
    shape = (first if f is None else with_channels_last(f, first, "source")).shape
    last = {i: turned(f, image) for i, image in good.items()}
    return Images(source, {i: image for i, image in last.items() if image.shape == shape}, f)


def open_images(
    f: Any,
    source: SourceLike,
    image_shape: tuple[int, int, int] | None,
    preprocess: PreprocessName | Preprocess | None,
) -> Images:
    """Open a source of images for a scorer, which may tell their shape, and read some of them.

    A preprocessing that is named may be the scorer's own.

    Raises:
        ValueError, TypeError: see `open_source` and `check_source`.
    """
    told = image_shape_of(f)
    known = isinstance(told, tuple) and len(told) == 3 and None not in told
    shape = image_shape or (told if known else None)
    if preprocess is not None and not callable(preprocess):
        preprocess = named_preprocessing(preprocess, f, argument="preprocess")
    return check_source(open_source(source, image_shape=shape, preprocess=preprocess), f)


def _checked(source: Source, index: int) -> np.ndarray | str:
    try:
        images, single = checked_images(source[index])
    except Exception as error:  # whatever a decoder or a user's function may raise
        return " ".join(str(error).split()) or type(error).__name__
    return images[0] if single else f"its shape is {images.shape}, not (H, W, C)"


@dataclass(frozen=True)
class _Reader:
    take: Callable[[Any], np.ndarray]
    preprocess: Preprocess | None

    def __call__(self, element: Any) -> np.ndarray:
        image = self.take(element)
        if self.preprocess is None:
            return image
        if isinstance(self.preprocess, Preprocessing):  # of pictures, not of bytes
            image = as_pictures(image, "source")
        return np.asarray(self.preprocess(image[None]))[0]


def _image_of(element: Any) -> np.ndarray:
    if isinstance(element, dict):
        element = element["image"]
    elif isinstance(element, tuple):
        element = element[0]
    image = np.asarray(element)
    return image[..., None] if image.ndim == 2 else image


@dataclass(frozen=True)
class _FileReader:
    shape: tuple[int, int, int]

    def __call__(self, path: Path) -> np.ndarray:
        return fit_picture(read_image(path), self.shape)


def _folder(
    folder: Path, image_shape: tuple[int, int, int] | None, preprocess: Preprocess | None
) -> Source:
    if image_shape is None:
        raise ValueError(
            "`image_shape` must be given for a folder of images, (height, width, channel), if the"
            " model does not tell its `input_shape`."
        )
    check_channels(image_shape)
    files = image_files(folder, subfolders=True)
    if not files:
        known = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"`source` must hold images: the folder {folder} has none ({known}).")
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    height, width, channels = image_shape
    units = f"{height}×{width}×{channels}, x in [0, 1]: {describe(preprocess)}"
    return Source(files, _Reader(_FileReader(image_shape), preprocess), names, units)


def _array_of(path: Path) -> np.ndarray:
    """Map the images of an .npy or .npz file into memory."""
    if not path.exists():
        raise ValueError(f"`source` must exist: there is no file or folder {path}.")
    if path.suffix.lower() not in ARRAYS:
        raise ValueError(
            f"`source` must be a folder of images, an .npy or an .npz file: got {path}."
        )
    try:
        return open_arrays(path)[0]
    except ValueError as error:
        raise ValueError(f"`source` must be a file of images: {error}") from error
