"""What an attribution gives: one signed number for every pixel, or site of a layer, and channel."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxviz._choices import Channels, Normalize
from jaxviz._version import __version__
from jaxviz.attribution.reading import MapReading, normalized, reduce_channels
from jaxviz.attribution.resize import resize
from jaxviz.occlusion.storage import read_result, write_result
from jaxviz.scoring.targets import Target, resolve, select

static: dict[str, Any] = {"static": True}
FORMAT = "jaxviz attribution 1"
ARRAYS = ("values", "base", "target", "delta", "error")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """How much each part of each image speaks for what was explained. A pytree.

    Attributes:
        values: (N, H, W, C), signed, positive where a part speaks for the target; (H, W, C) for a
            single image. Of a layer, (N, H', W', 1); of a method that knows no channels, C = 1.
            With `every`, one axis more at the end, K classes. NaN where nothing was computed.
        base: (N, K) scores of the clean images; (K,) for a single image.
        target: what was explained: int (N,), a class per image, or float (N, K), weights; without N
            for a single image. None: a function of the scores, or every class.
        delta: (N,), by how much Σ values misses what it should add up to; () for a single image;
            None where the method promises no sum.
        error: (N,), how far `values` may be off, as the method defines it, () for a single image;
            None: nothing is sampled.
        method: which method.
        image_shape: (H, W) of the images, in pixels.
        single: whether there was one image (H, W, C), not a batch.
        partial: whether Ctrl-C ended the run before its end.
        every: whether `values` has a last axis of classes.
        reading: what `heatmap` takes where an argument is not given.
        config: how the run was made, as (name, value) pairs of strings.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda images: images.mean((1, 2))
        >>> att = jv.attribution.saliency(f, np.ones((4, 6, 3), np.float32), target=0)
        >>> att
        Attribution(saliency of 1 image 4×6, class 0 of 3)
        >>> att.heatmap().shape
        (4, 6)
    """

    values: np.ndarray
    base: np.ndarray
    target: np.ndarray | None = None
    delta: np.ndarray | None = None
    error: np.ndarray | None = None
    method: str = field(default="", metadata=static)
    image_shape: tuple[int, int] = field(default=(0, 0), metadata=static)
    single: bool = field(default=False, metadata=static)
    partial: bool = field(default=False, metadata=static)
    every: bool = field(default=False, metadata=static)
    reading: MapReading = field(default=MapReading(), metadata=static)
    config: tuple[tuple[str, str], ...] = field(default=(), metadata=static)

    def heatmap(
        self,
        channels: Channels | None = None,
        normalize: Normalize | None = None,
        *,
        target: Target = None,
    ) -> np.ndarray:
        """Return one number per pixel; the model does not run again.

        What is not given is as the result's `reading` has it, or else as named below. Channels are
        reduced first, then a layer's map is enlarged to the image, then it is scaled.

        Args:
            channels: "sum", the default, "abs_sum", "max_abs" (the largest |v|) or "norm" (√Σ v²).
            normalize: None, the default, as it is; "max_abs", v / max |v|; "min_max",
                (v − min) / (max − min), each map by itself. A map of zeros stays one.
            target: of a result of every class, which one, as in `Occlusion.heatmap`; None: the one
                with the largest clean score. Of others, None or what was explained.

        Returns:
            float32 (N, H, W); (H, W) for a single image.

        Raises:
            ValueError: an option is unknown, or the target was not explained.
        """
        given = {"channels": channels, "normalize": normalize}
        reading = replace(self.reading, **{k: v for k, v in given.items() if v is not None})
        maps = reduce_channels(self._picked(target), reading.channels)
        if reading.rectify:
            maps = np.maximum(maps, 0)
        if reading.before:
            maps = normalized(maps, reading.normalize, reading.epsilon)
        if reading.upsample is not None and maps.shape[1:] != self.image_shape:
            maps = resize(maps, self.image_shape, reading.upsample)
        maps = normalized(maps, reading.normalize, reading.epsilon).astype(np.float32)
        return maps[0] if self.single else maps

    @property
    def probabilities(self) -> bool:
        """Whether the scores look like probabilities; `jaxviz.logits` is the score before them."""
        base = np.asarray(self.base, np.float64)
        return bool(
            base.shape[-1] > 1
            and base.min() >= 0
            and np.allclose(base.sum(-1), 1, rtol=0, atol=1e-3)
        )

    def save(self, path: str | Path) -> None:
        """Write the result to one .npz file, without pickle; `jaxviz.load` reads it.

        Args:
            path: the file; one that is there is replaced once the new one is complete.

        Raises:
            OSError: the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        record = {
            "format": FORMAT,
            "version": __version__,
            "method": self.method,
            "image_shape": self.image_shape,
            "single": self.single,
            "partial": self.partial,
            "every": self.every,
            "reading": asdict(self.reading),
            "config": self.config,
        }
        write_result(path, {k: np.asarray(v) for k, v in arrays.items() if v is not None}, record)

    def _picked(self, target: Target) -> np.ndarray:
        """The values of one target, (N, H', W', C)."""
        values, base = self._batch(self.values), self._batch(self.base)
        if self.every:
            return select(values, base, target)[0]
        if target is None:
            return values
        known = None if self.target is None else self._batch(self.target)
        asked = None if callable(target) or base.ndim != 2 else resolve(target, *base.shape)
        if known is None or asked is None or not np.array_equal(known, asked):
            raise ValueError(
                f"`target` must be what was explained, {self._of()}: got {target!r}; explain that"
                " by a run of its own."
            )
        return values

    def _batch(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)[None] if self.single else np.asarray(array)

    def _of(self) -> str:
        classes = np.shape(self.base)[-1]
        if self.every:
            return f"all {classes} classes"
        if self.target is None:
            return "a function of the scores"
        target = np.asarray(self.target)
        if target.dtype.kind == "f":
            return f"a sum over {classes} classes"
        found = np.unique(target)
        if len(found) > 1:
            return f"{len(found)} of {classes} classes"
        return f"class {found[0]} of {classes}"

    def __repr__(self) -> str:
        count = 1 if self.single else len(self.values)
        height, width = self.image_shape
        parts = [
            f"{self.method} of {count} image{'s' * (count != 1)} {height}×{width}",
            self._of(),
        ]
        if not isinstance(self.values, jax.core.Tracer) and self.probabilities:
            parts.append("a probability; jaxviz.logits gives the score before it")
        if self.partial:
            parts.append("interrupted")
        return f"Attribution({', '.join(parts)})"

    def _repr_png_(self) -> bytes | None:
        # A notebook's hook: the only way from here to matplotlib, taken when a notebook asks.
        from jaxviz.plot._heatmaps import occlusion_png

        return occlusion_png(self)


def load_attribution(path: str | Path) -> Attribution:
    """Read a result that `Attribution.save` wrote.

    Args:
        path: the .npz file.

    Returns:
        The result, as it was saved.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is not such a result.

    Example:
        >>> load_attribution("saliency.npz").heatmap()  # doctest: +SKIP
    """
    try:
        arrays, record = read_result(path)
        if record["format"] != FORMAT:
            raise ValueError(record["format"])
        return Attribution(
            **{name: arrays.get(name) for name in ARRAYS},  # pyright: ignore[reportArgumentType]
            method=str(record["method"]),
            image_shape=(int(record["image_shape"][0]), int(record["image_shape"][1])),
            single=bool(record["single"]),
            partial=bool(record["partial"]),
            every=bool(record["every"]),
            reading=MapReading(**record["reading"]),
            config=tuple((str(key), str(value)) for key, value in record["config"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`path` must be a file that Attribution.save wrote: {path} is not."
        ) from error
