"""From pictures in [0, 1] to the units that a model was trained on, by formula and by name.

A network trained on bytes sees next to nothing in [0, 1], and says so nowhere: which formula it
takes is the first thing to know of a model. A model that knows says it: as `preprocessing`, a
`Preprocessing`, or as `white`, what white is to it, where its first layer rescales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from jaxviz._choices import Fit, Preprocess
from jaxviz.images.arrays import check_values
from jaxviz.images.decode import read_image
from jaxviz.images.files import fit_picture


@dataclass(frozen=True)
class Preprocessing:
    """From pictures in [0, 1] to a model's units: ((x or 1 − x) · scale − mean) / std.

    Attributes:
        scale: what white is to the model: 1, 255, …
        invert: take 1 − x first: dark ink on white paper becomes MNIST's white on black.
        bgr: reverse the channels, before `mean` and `std`.
        mean: subtracted after scaling; one number, or one per channel.
        std: divided by at the end; one number, or one per channel.

    Example:
        >>> import numpy as np
        >>> Preprocessing(scale=255, mean=(100.0,))(np.ones((1, 1, 1, 1))).item()
        155.0
    """

    scale: float = 1.0
    invert: bool = False
    bgr: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, C) pictures -> (N, H, W, C) float32 in the model's units."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, pictures.shape[-1]):
                raise ValueError(
                    f"`{name}` must be one number or one per channel: got {len(values)} for "
                    f"{pictures.shape[-1]} channels."
                )
            if not np.all(np.isfinite(values)) or (name == "std" and 0 in values):
                raise ValueError(
                    f"`{name}` must be finite{' and not 0' * (name == 'std')}: got "
                    f"{_numbers(values)}."
                )
        if not np.isfinite(self.scale):
            raise ValueError(f"`scale` must be finite: got {self.scale}.")
        values = 1 - pictures if self.invert else pictures
        values = values[..., ::-1] if self.bgr else values
        return ((values * self.scale - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def undo(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, C) in the model's units -> pictures, cut to [0, 1]: what is to be looked at.

        Example:
            >>> NAMED["raw"].undo(np.full((1, 1, 1, 3), 51.0))[0, 0, 0].tolist()
            [0.2, 0.2, 0.2]
        """
        values = (np.asarray(images) * np.array(self.std) + np.array(self.mean)) / self.scale
        values = values[..., ::-1] if self.bgr else values
        return np.clip(1 - values if self.invert else values, 0, 1)

    def describe(self) -> str:
        """Return the formula that is applied, for people, after its name if it has one."""
        text = "1 − x" if self.invert else "x"
        text = f"BGR of {text}" if self.bgr else text
        text += "" if self.scale == 1 else f" · {self.scale:g}"
        text += "" if not any(self.mean) else f" − {_numbers(self.mean)}"
        text = text if set(self.std) == {1.0} else f"({text}) / {_numbers(self.std)}"
        name = next((name for name, known in NAMED.items() if known == self), "unit")
        return text if name == "unit" else f"{name}: {text}"


# As the networks of Caffe, TensorFlow and PyTorch are usually trained, and bytes as they are.
NAMED: dict[str, Preprocessing] = {
    "unit": Preprocessing(),
    "raw": Preprocessing(scale=255),
    "tf": Preprocessing(scale=255, mean=(127.5,), std=(127.5,)),
    "torch": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Preprocessing(scale=255, bgr=True, mean=(103.939, 116.779, 123.68)),
}


def preprocessing_of(model: Any) -> Preprocessing | None:
    """Return the preprocessing that a model says it takes; None: it says nothing.

    Args:
        model: one with `preprocessing`, or with `white`, as a Keras model whose first layer is
            Rescaling or Normalization.

    Returns:
        The preprocessing.

    Example:
        >>> print(preprocessing_of(lambda images: images.mean((1, 2))))
        None
    """
    own = getattr(model, "preprocessing", None)
    if isinstance(own, Preprocessing):
        return own
    white = getattr(model, "white", None)
    return Preprocessing(scale=float(white)) if isinstance(white, int | float) else None


def named_preprocessing(
    name: Preprocess | Preprocessing, model: Any = None, *, argument: str = "preprocessing"
) -> Preprocessing:
    """Return a preprocessing of a name.

    Args:
        name: "unit", x in [0, 1]; "raw", bytes; "tf", [−1, 1]; "torch", less the mean of ImageNet's
            colours and divided by their deviation; "caffe", BGR bytes less the mean; "model", as
            the model says; a `Preprocessing` is returned.
        model: for "model".
        argument: what the name is called in messages.

    Returns:
        The preprocessing.

    Raises:
        ValueError: there is none of that name, or the model says nothing.

    Example:
        >>> named_preprocessing("caffe").describe()
        'caffe: BGR of x · 255 − (103.939, 116.779, 123.68)'
    """
    if isinstance(name, Preprocessing):
        return name
    if name == "model":
        own = preprocessing_of(model)
        if own is None:
            others = ", ".join(f'"{word}"' for word in NAMED)
            raise ValueError(
                f'`{argument}` "model" needs a model that says what it takes: got one of'
                f" {type(model).__name__}, which does not; give one of {others}."
            )
        return own
    if name not in NAMED:
        words = ", ".join(f'"{word}"' for word in get_args(Preprocess))
        raise ValueError(f"`{argument}` must be one of {words}: got {name!r}.")
    return NAMED[name]


def preprocess(
    photo: np.ndarray | str | Path,
    model: Any,
    *,
    preprocessing: Preprocess | Preprocessing = "model",
    fit: Fit = "stretch",
) -> np.ndarray:
    """Return a photograph, or several, in the size and the units that a model takes.

    Args:
        photo: (H, W), (H, W, C) or (N, H, W, C), C = 1 or 3, bytes or floats in [0, 1]; or the path
            of an image file.
        model: with `input_shape`, (H, W, C).
        preprocessing: "model", or another name of `named_preprocessing`, or a formula.
        fit: "stretch" to the model's height and width, or "crop" the middle of their aspect first.

    Returns:
        float32 (H, W, C) of `input_shape`, or (N, H, W, C).

    Raises:
        ValueError: an argument breaks its rule, or the model does not say what it takes.

    Example:
        >>> import jaxviz as jv
        >>> photo, model = np.zeros((40, 60, 3), np.uint8), jv.models.mnist_cnn()
        >>> preprocess(photo, model, preprocessing="unit").shape
        (28, 28, 1)
    """
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3 or None in shape:
        raise ValueError(
            f"`model` must have an `input_shape` (H, W, C) without open sizes: got {shape}."
        )
    shape = getattr(model, "image_shape", shape)  # (H, W, C), also where channels come first
    if fit not in get_args(Fit):
        raise ValueError(f'`fit` must be "stretch" or "crop": got {fit!r}.')
    chosen = named_preprocessing(preprocessing, model)
    array = read_image(Path(photo)) if isinstance(photo, str | Path) else np.asarray(photo)
    _check_picture(array, "photo")
    single = array.ndim < 4
    batch = array[None] if single else array
    batch = np.stack([_cropped(picture, shape) for picture in batch]) if fit == "crop" else batch
    images = chosen(np.stack([fit_picture(picture, shape) for picture in batch]))
    return images[0] if single else images


def as_pictures(array: np.ndarray, name: str) -> np.ndarray:
    """Return what a preprocessing of pictures takes, floats in [0, 1], from bytes or such floats.

    Args:
        array: of any shape; uint8, uint16 or floats in [0, 1].
        name: what it is called in messages.

    Raises:
        ValueError: the values are others.

    Example:
        >>> as_pictures(np.array([0, 51], np.uint8), "images").tolist()
        [0.0, 0.20000000298023224]
    """
    check_values(array, f"`{name}`")
    white = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    return array.astype(np.float32) / np.float32(white)


def _check_picture(array: np.ndarray, name: str) -> None:
    fits = array.ndim == 2 or (array.ndim in (3, 4) and array.shape[-1] in (1, 3))
    if not fits or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be (H, W), or (H, W, C) or (N, H, W, C) with 1 or 3 channels:"
            f" got {array.shape}."
        )
    check_values(array, f"`{name}`")


def _cropped(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the middle of a picture, as large as the aspect of `shape` allows."""
    height, width = picture.shape[:2]
    scale = min(height / shape[0], width / shape[1])
    tall, wide = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    top, left = (height - tall) // 2, (width - wide) // 2
    return picture[top : top + tall, left : left + wide]


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{v:g}' for v in values)})"
