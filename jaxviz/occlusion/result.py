"""What an occlusion run gives: the scores of all classes at all positions, to be read at will."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxviz._choices import Reduce, Score
from jaxviz._version import __version__
from jaxviz.occlusion.notes import notes_on
from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.storage import read_result, write_result
from jaxviz.perturbation.fill import ArrayLike, FillLike
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.segmentations import Segmentations
from jaxviz.perturbation.segments import Segments
from jaxviz.perturbation.traced import as_array, as_floats, namespace
from jaxviz.scoring.targets import Target, by_name, compare, select

if TYPE_CHECKING:
    from jaxviz.viewer import Report

static: dict[str, Any] = {"static": True}
FORMAT = "jaxviz occlusion 1"


class Approximation(NamedTuple):
    """What a run with a `tolerance` measured; shares are of the largest change of any score.

    Attributes:
        tolerance: largest error allowed, as a share.
        bound: estimate of the largest error of any score at any position, as a share; at most the
            tolerance, and 0 if the scores are exact.
        confidence: how often such a bound holds, as a benchmark counted over networks and images
            (`benchmarks/tolerance_keeps_its_word.py`); 1 if the scores are exact.
        checked: at how many positions of each image exact scores were compared; 0 if there was
            nothing to cut.
        checked_error: largest error found there, as a share: of other positions it says nothing.
        field: sites of each layer, beyond the patch, to which its effect was followed; None: all,
            exact.
    """

    tolerance: float
    bound: float
    confidence: float
    checked: int
    checked_error: float
    field: int | None

    @classmethod
    def none(cls, tolerance: float, checked: int) -> "Approximation":
        """Return that of a run whose scores are exact all the same."""
        return cls(tolerance, 0.0, 1.0, checked, 0.0, None)

    @classmethod
    def of(cls, record: Any) -> "Approximation | None":
        """Return what was saved; of files up to version 0.1.0, whose bound was not estimated."""
        if record is None or isinstance(record, Mapping):
            return record if record is None else cls(**record)
        tolerance, error, checked, field = record
        if field is None:
            return cls.none(tolerance, checked)
        return cls(tolerance, float("inf"), 0.0, checked, error, field)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class Occlusion:
    """Scores of every position of every image, and of the clean images. A pytree.

    Attributes:
        scores: (N, rows, cols, K), raw outputs of the scorer; (rows, cols, K) for a single image;
            NaN where nothing was computed (outside a region, or after an interruption). For
            segments, (N, groups, K).
        base: (N, K) scores of the clean images; (K,) for a single image.
        grid: where the positions lie; a `Grid`, or `Segments`.
        single: whether the run was given one image (H, W, C), not a batch.
        partial: whether Ctrl-C ended the run before its end.
        config: how the run was made, as (name, value) pairs of strings.
        exact: bool (N, rows, cols), which scores are exact and not interpolated, of a run with
            `refine`; None: all of them. With a tolerance, exact up to `approximation.bound`.
        approximation: what a run with a `tolerance` measured; None: it had none.
        reading: what `heatmap` takes where an argument is not given; None: drops, averaged.
        class_names: the names of the K classes, which `heatmap` takes as targets; None: they have
            none.
        interpolation_error: of a run with `refine`, float (N,), () for a single image: the largest
            error of any score that interpolation would have made at a quarter of the positions that
            were scored besides the coarse ones, those around which scores vary least, as a share of
            the largest change of any score of the image; an estimate for the positions that are
            interpolated. NaN where there are none, or after an interruption.

    Example:
        >>> import jaxviz as jv
        >>> occ = jv.occlude(lambda x: x.mean((1, 2)), np.ones((4, 6, 3), np.float32), patch=2)
        >>> occ
        Occlusion(1 image 4×6, 2×3 positions, patch 2×2, stride 2×2, 3 classes)
        >>> occ.heatmap(target=0).shape
        (4, 6)
    """

    scores: np.ndarray
    base: np.ndarray
    grid: Grid | Segments | Segmentations = field(metadata=static)
    single: bool = field(default=False, metadata=static)
    partial: bool = field(default=False, metadata=static)
    config: tuple[tuple[str, str], ...] = field(default=(), metadata=static)
    exact: np.ndarray | None = None
    approximation: Approximation | None = field(default=None, metadata=static)
    reading: Reading | None = field(default=None, metadata=static)
    class_names: tuple[str, ...] | None = field(default=None, metadata=static)
    interpolation_error: np.ndarray | None = None

    def heatmap(
        self,
        target: Target = None,
        score: Score | None = None,
        reduce: Reduce | None = None,
        *,
        weights: np.ndarray | None = None,
        uncovered: float | None = None,
    ) -> np.ndarray:
        """Spread one target's scores back over the pixels; the model does not run again.

        What is not given is as the run's `reading` has it, or else as named below.

        Args:
            target: None, the class with the largest clean score, per image; a class, or its name in
                `class_names`; one of these per image; weights of the classes, float (K,) or (N, K);
                or a function, scores (..., K) -> (...).
            score: "drop", the default (clean − occluded; positive where the pixels speak for the
                target), "raw", "complement" (1 − raw), "relative_drop" (drop / |clean|) or
                "log_odds_drop".
            reduce: "mean", the default, or "sum" over the patches that cover a pixel, "cell" (every
                position writes its own cell), "bilinear" (interpolated between the middles of the
                patches) or "stretch" (the map of positions, resized to the image).
            weights: for mean and sum, how much each pixel of a patch counts, (ph, pw); default: 1.
            uncovered: the value of pixels that no patch covers; default: NaN.

        Returns:
            (N, H, W), in the dtype of the scores; (H, W) for a single image. NaN where nothing that
            covers the pixel has a value, such as after an interruption (of a sum: where anything
            that covers it is unfinished). Infinite where a score is that covers it. Traced if the
            scores are: it is JAX all through, and checks of values are left out.

        Raises:
            ValueError: the target is out of range, no class has that name (the message tells the
                nearest), or an option is unknown.
        """
        own = self.reading or Reading()
        score = own.score if score is None else score
        reduce = own.reduce if reduce is None else reduce
        weights = own.weights if weights is None else weights
        uncovered = own.uncovered if uncovered is None else uncovered
        target = by_name(target, self.class_names)
        picked, clean = select(self._batch(self.scores), self._batch(self.base), target)
        values = compare(picked, clean, score)
        xp, spread = namespace(values), partial(self.grid.spread, reduce=reduce, weights=weights)
        heatmap = spread(values)
        if self.partial and reduce == "sum":  # a sum of what is finished is no smaller sum
            heatmap = xp.where(spread(xp.isnan(values)) > 0, np.nan, heatmap)
        outside = np.isnan(spread(np.zeros(self.grid.shape)))
        heatmap = xp.where(xp.broadcast_to(outside, heatmap.shape), uncovered, heatmap)
        with np.errstate(over="ignore"):  # a relative drop may exceed float32
            heatmap = heatmap.astype(self.scores.dtype)
        return heatmap[0] if self.single else heatmap

    def class_map(self) -> np.ndarray:
        """Return the class that is predicted when a pixel's cell is covered.

        Returns:
            int32 (N, H, W), or (H, W) for a single image: the largest score's class; for one score
            only, whether it exceeds 0.5; −1 where no position was computed.
        """
        spread = self.grid.spread(self._predictions(), "cell")
        xp = namespace(spread)
        classes = xp.where(xp.isnan(spread), -1, spread).astype(np.int32)
        return classes[0] if self.single else classes

    def class_counts(self) -> dict[int, int] | list[dict[int, int]]:
        """Return how many positions predict each class, classes without any left out.

        Returns:
            {class: number of positions}; a list of them, one per image, for a batch.
        """
        counts = []
        for predictions in self._predictions():
            classes, numbers = np.unique(predictions[~np.isnan(predictions)], return_counts=True)
            counts.append({int(c): int(n) for c, n in zip(classes, numbers, strict=True)})
        return counts[0] if self.single else counts

    def save(self, path: str | Path) -> None:
        """Write the result to one .npz file, without pickle; `jaxviz.load_occlusion` reads it.

        Args:
            path: the file; one that is there is replaced once the new one is complete.

        Raises:
            OSError: the file cannot be written.
        """
        where, labels = _grid_record(self.grid)
        record = {
            "format": FORMAT,
            "version": __version__,
            "grid": where,
            "single": self.single,
            "partial": self.partial,
            "config": self.config,
            "approximation": self.approximation and self.approximation._asdict(),
            "reading": None if self.reading is None else self.reading.record(),
            "class_names": self.class_names,
        }
        arrays = {"scores": self.scores, "base": self.base}
        if labels is not None:
            arrays["labels"] = labels
        if self.exact is not None:
            arrays["exact"] = self.exact
        if self.interpolation_error is not None:
            arrays["interpolation_error"] = self.interpolation_error
        write_result(path, arrays, record)

    @property
    def notes(self) -> tuple[str, ...]:
        """What looks wrong in the scores, a sentence each on what to check; mostly none."""
        return notes_on(self._batch(self.scores), self._batch(self.base), dict(self.config))

    def to_html(
        self,
        path: str | Path,
        *,
        images: ArrayLike,
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        fill: FillLike | None = None,
    ) -> Path:
        """Write one HTML file in which every position can be pointed at.

        Args:
            path: the file, usually `*.html`; one that is there is replaced.
            images: what was occluded, or pictures of it, as `jaxviz.viewer.report` takes them.
            class_names: the name of every class.
            names: of the images, such as their files'.
            fill: what the patches were made of, if it was a function or an image.

        Returns:
            Where it was written.

        Raises:
            ValueError: the images do not suit the result.
            OSError: the file cannot be written.

        Example:
            >>> import jaxviz as jv
            >>> images = np.ones((1, 4, 4, 1), np.float32)
            >>> occ = jv.occlude(lambda x: x.mean((1, 2)), images, patch=2)
            >>> occ.show(images=images)
            Report(1 image, 0.0 MB)
        """
        report = self.show(images=images, class_names=class_names, names=names, fill=fill)
        return report.save(path)

    def show(
        self,
        *,
        images: ArrayLike,
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        fill: FillLike | None = None,
    ) -> "Report":
        """Return the page of `to_html`; as the last value of a notebook's cell it shows itself."""
        from jaxviz.viewer import report

        return report(self, images, class_names=class_names, names=names, fill=fill)

    def _predictions(self) -> np.ndarray:
        """The class predicted at each position, float (N, *positions), NaN where not computed."""
        scores = self._batch(self.scores)
        if scores.ndim != 2 + len(self.grid.shape):
            raise ValueError(
                "a class map needs scores (K,) per image:"
                f" got scores of shape {self._batch(self.base).shape[1:]}."
            )
        xp = namespace(scores)
        classes = scores[..., 0] > 0.5 if scores.shape[-1] == 1 else xp.argmax(scores, -1)
        return xp.where(xp.isnan(scores).any(-1), np.nan, as_floats(classes))

    def _batch(self, array: np.ndarray) -> np.ndarray:
        return as_array(array)[None] if self.single else as_array(array)

    def __repr__(self) -> str:
        count = 1 if self.single else len(self.scores)
        height, width = self.grid.image_shape
        classes = np.shape(self.base)[-1]
        parts = [
            f"{count} image{'s' * (count != 1)} {height}×{width}",
            str(self.grid),
            f"{classes} class{'es' * (classes != 1)}",
        ]
        if self.exact is not None or self._cut_short:
            parts.append(f"approximate, {self._how_approximate()}")
        if self.partial:
            parts.append("interrupted")
        return f"Occlusion({', '.join(parts)})"

    @property
    def _cut_short(self) -> bool:
        return self.approximation is not None and self.approximation.field is not None

    def _how_approximate(self) -> str:
        parts = []
        if self.exact is not None:
            what = "scored" if self._cut_short else "exact"
            parts.append(f"{np.mean(self.exact):.0%} of the positions {what}")
        if self.interpolation_error is not None and not np.isnan(self.interpolation_error).all():
            error = np.nanmax(self.interpolation_error)
            parts.append(f"interpolation off by {error:.2g} of the largest change")
        if self.approximation is not None and self._cut_short:
            parts.append(f"error up to {self.approximation.bound:.2g} of the largest change")
        return ", ".join(parts)

    def _repr_png_(self) -> bytes | None:
        # A notebook's hook: the only way from here to matplotlib, taken when a notebook asks.
        from jaxviz.plot._heatmaps import occlusion_png

        return occlusion_png(self)


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
    try:
        arrays, record = read_result(path)
        if record["format"] != FORMAT:
            raise ValueError(record["format"])
        return Occlusion(
            arrays["scores"],
            arrays["base"],
            _grid(record["grid"], arrays.get("labels")),
            bool(record["single"]),
            bool(record["partial"]),
            tuple((str(key), str(value)) for key, value in record["config"]),
            arrays.get("exact"),
            Approximation.of(record.get("approximation")),
            Reading.of(record.get("reading")),
            tuple(map(str, names)) if (names := record.get("class_names")) else None,
            arrays.get("interpolation_error"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`path` must be a file that Occlusion.save wrote: {path} is not."
        ) from error


def _grid_record(grid: Grid | Segments | Segmentations) -> tuple[dict[str, Any], Any]:
    """Return what JSON can hold of a grid, and the labels."""
    if isinstance(grid, Grid):
        return asdict(grid), None
    if isinstance(grid, Segments):
        return {"groups": grid.groups}, grid.labels
    return {"groups": [one.groups for one in grid.each]}, np.stack(
        [one.labels for one in grid.each]
    )


def _grid(where: dict[str, Any], labels: np.ndarray | None) -> Grid | Segments | Segmentations:
    if labels is None:
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in where.items()
        }
        return Grid(**fields)
    if labels.ndim == 2:
        return _segments(labels, where["groups"])
    return Segmentations(tuple(map(_segments, labels, where["groups"])))


def _segments(labels: np.ndarray, groups: Sequence[Sequence[int]]) -> Segments:
    return Segments(labels, tuple(tuple(group) for group in groups))
