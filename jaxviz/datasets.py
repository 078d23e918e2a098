"""Handwritten digits and photographs that come with installed packages; MNIST from the net.

Every loader of digits gives `(images, labels)`: images float32 `(N, 28, 28, 1)` in [0, 1], white on
black, labels int64 `(N,)`. Photographs are bytes `(H, W, 3)`.
"""

import hashlib
import os
import shutil
import urllib.request
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz._files import whole
from jaxviz.images.decode import read_image
from jaxviz.images.resize import resize

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"

# Name -> package, file in it, photographer and licence.
PHOTOGRAPHS = {
    "cat": ("skimage", "data/chelsea.png", "Stéfan van der Walt, CC0"),
    "coffee": ("skimage", "data/coffee.png", "Rachel Michetti, CC0"),
    "temple": ("sklearn", "datasets/images/china.jpg", "danielbuechele, CC BY 2.0"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0"),
}


def load_photograph(name: str) -> np.ndarray:
    """Load one of the photographs that scikit-image and scikit-learn ship; nothing is downloaded.

    Args:
        name: "cat" or "coffee", of scikit-image, "temple" or "flower", of scikit-learn.

    Returns:
        Bytes (H, W, 3), in the photograph's own size.

    Raises:
        ValueError: there is none of that name.
        ModuleNotFoundError: the package that ships it is not installed.

    Example:
        >>> load_photograph("coffee").shape
        (400, 600, 3)
    """
    if name not in PHOTOGRAPHS:
        known = ", ".join(f'"{word}"' for word in PHOTOGRAPHS)
        raise ValueError(f"`name` must be one of {known}: got {name!r}.")
    package, file, _ = PHOTOGRAPHS[name]
    spec = find_spec(package)  # its code is not run: the photographs are files
    if spec is None or not spec.submodule_search_locations:
        owner = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ModuleNotFoundError(
            f"the photograph comes with {owner}, which is missing: pip install"
            " 'jaxviz-cnn[photos]'.",
            name=package,
        )
    return read_image(Path(spec.submodule_search_locations[0], file))


def load_digits(split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Load the UCI handwritten digits, enlarged from 8×8 to 20×20 (bicubic), centred on 28×28.

    That is how MNIST's digits lie in their frame. The set is cut in the middle: the bundled model
    was trained with its first 898 digits ("train"), and never saw the other 899 ("test").

    Args:
        split: "train", "test" or "all".

    Returns:
        images, float32 (N, 28, 28, 1) in [0, 1], and labels, int64 (N,).

    Raises:
        ValueError: `split` is none of the three.
        ModuleNotFoundError: scikit-learn, which ships the digits, is not installed.

    Example:
        >>> images, labels = load_digits("test")
        >>> images.shape, float(images.max())
        ((899, 28, 28, 1), 1.0)

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, doi:10.24432/C50P49.
    """
    parts = {"train": slice(0, 898), "test": slice(898, None), "all": slice(None)}
    if split not in parts:
        raise ValueError(f'`split` must be "train", "test" or "all": got {split!r}.')
    try:
        from sklearn.datasets import load_digits as load_uci
    except ModuleNotFoundError as error:
        message = (
            "the UCI digits come with scikit-learn, which is missing: pip install scikit-learn."
        )
        raise ModuleNotFoundError(message, name="sklearn") from error
    data: Any = load_uci()
    small = np.asarray(data["images"], np.float32) / 16
    images = np.stack([_enlarge(digit) for digit in small[parts[split]]])
    return images[..., None], np.asarray(data["target"], np.int64)[parts[split]]


def _enlarge(digit: np.ndarray) -> np.ndarray:
    return np.pad(np.clip(resize(digit, (20, 20), "bicubic"), 0, 1), 4)


def load_mnist(
    path: str | os.PathLike[str] | None = None, split: str = "test"
) -> tuple[np.ndarray, np.ndarray]:
    """Load MNIST from an .npz file with the keys of `keras.datasets.mnist`.

    Args:
        path: the file. None takes it from the cache (`$JAXVIZ_CACHE`, default `~/.cache/jaxviz`),
            and downloads it there once, checked by its SHA-256, when the cache does not hold it.
        split: "train" (60 000 images), "test" (10 000) or "all".

    Returns:
        images, float32 (N, 28, 28, 1) in [0, 1], and labels, int64 (N,).

    Raises:
        ValueError: `split` is none of the three, or the file is not such an .npz.
        FileNotFoundError: there is no file at `path`.
        OSError: the download failed, or what came has another checksum.

    Example:
        >>> images, labels = load_mnist("mnist.npz", "test")  # doctest: +SKIP

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits.
    """
    parts = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}
    if split not in parts:
        raise ValueError(f'`split` must be "train", "test" or "all": got {split!r}.')
    file = Path(path) if path is not None else _cached_mnist()
    if not file.is_file():
        raise FileNotFoundError(f"`path` must name an .npz file: there is none at {file}.")
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            images = np.concatenate([arrays[f"x_{part}"] for part in parts[split]])
            labels = np.concatenate([arrays[f"y_{part}"] for part in parts[split]])
    except (
        KeyError,
        TypeError,
        ValueError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        message = f"`path` must hold x_train, y_train, x_test and y_test: {file} does not."
        raise ValueError(message) from error
    return images.astype(np.float32)[..., None] / 255, labels.astype(np.int64)


def _cached_mnist() -> Path:
    folder = Path(os.environ.get("JAXVIZ_CACHE", Path.home() / ".cache" / "jaxviz"))
    file = folder / "mnist.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(MNIST_URL, MNIST_SHA256, file)
    return file


def _download(url: str, sha256: str, file: Path) -> None:
    with whole(file) as part:
        with urllib.request.urlopen(url, timeout=30) as response, open(part, "wb") as stream:
            shutil.copyfileobj(response, stream)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        if digest != sha256:
            raise OSError(f"the download from {url} has the SHA-256 {digest}, not {sha256}.")
