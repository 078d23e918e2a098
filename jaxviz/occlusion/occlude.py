"""Occlusion: how the scores change when part of an image is hidden, for every position at once.

`occlusion_scores` is the kernel: pure, no jit inside, composable with `jit`, `vmap` and `grad`.
`occlude`, and `occlude_segments` beside it, are drivers around one compiled program: they check
their input, keep memory bounded, spread over devices and report progress. Images are (height,
width, channel), floats on the scorer's own scale; integers are converted to float32, without
scaling.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import Pair, whole_number
from jaxviz._choices import Border, Method
from jaxviz.occlusion.found import described, make_result
from jaxviz.occlusion.reading import Reading, checked_reading
from jaxviz.occlusion.refinement import Refine, check_refinement
from jaxviz.occlusion.result import Occlusion
from jaxviz.occlusion.score import score_all, score_refined
from jaxviz.occlusion.tolerance import approximate_evaluators
from jaxviz.perturbation.fills import FillLike
from jaxviz.perturbation.grid import Region
from jaxviz.perturbation.patches import Patches
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import (
    check_progress,
    check_tolerance,
    checked_images,
)
from jaxviz.scoring.choice import choose_evaluators
from jaxviz.scoring.scorer import Scorer
from jaxviz.scoring.task import make_task


def occlude(
    f: Scorer,
    images: jax.Array | np.ndarray,
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    fill: FillLike = 0.0,
    border: Border = "clip",
    region: Region | None = None,
    channels: Sequence[int] | None = None,
    complement: bool = False,
    refine: Refine | None = None,
    tolerance: float | None = None,
    method: Method = "auto",
    batch_size: int | Literal["auto", "fastest"] = "auto",
    memory: int | str | None = None,
    dtype: Any = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    reading: Reading | None = None,
    class_names: Sequence[str] | None = None,
) -> Occlusion:
    """Hide every position of one or many images in turn, and keep the scores of all classes.

    scores[n, i, j] = f(image n with the patch at (i·stride − margin, j·stride − margin)).

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K); a Flax, Keras or Equinox model or a
            function. Its arrays are arguments of the compiled program, see
            `jaxviz.scoring.scorer.split`.
        images: (N, H, W, C), or (H, W, C) for a single image, on the scorer's scale. A signal of
            length L is an image (1, L, C); volumes are not supported.
        patch: height and width of the patch in pixels; an int means a square.
        stride: pixels between starts, per axis; None: the patch, so that patches are tiles.
        margin: by how many pixels the first patch starts before the image.
        fill: what the patch is made of: a number, one per channel, an image, "mean", "patch_mean",
            a function (pixels under the patch, start) -> patch, or one of `jaxviz.fills`.
        border: "clip", "valid" or "shift", see `jaxviz.perturbation.grid.Grid`.
        region: only positions whose cell meets it are scored: a box (top, left, bottom, right), in
            pixels, or a mask, bool (H, W).
        channels: which channels the patch covers; None: all.
        complement: keep the patch and hide everything else.
        refine: an approximation: (factor, share) scores every factor-th row and column of
            positions, then the share of all positions around which these scores vary most, and
            interpolates the others between the coarse ones next to them; the result's `exact` tells
            which are which, its `interpolation_error` how far off that was where it was checked.
            (factor, share, error) ends early, image by image: positions come in four rounds, and no
            more once this is at most `error`, a share of the largest change of any score.
        tolerance: an approximation, for method "incremental" and "auto": what a patch changes is
            followed only so far beyond the patch that no score is wrong by more than this share, in
            [0, 1], of the largest change that any patch makes to any score of the same image. This
            is estimated from 62 positions of each image that are scored exactly, 47 random ones and
            15 around the most influential of these: 2.5 times the largest error found, or 4 times
            where large errors are rare: it held in 97.8 % of runs, 93 to 100 % by the kind of
            network, and mostly errors are less than half of it. One width of windows serves all
            images. All is exact where none keeps the tolerance, where there are no more than 62
            positions and, with "auto", where a model says that the call ends before the search for
            a width pays. The result's `approximation` tells the estimate and what it rests on.
            None: exact.
        method: "dense" runs the whole network at every position; "incremental" runs it once per
            image, and then again only on what each patch changes, with the same result up to the
            order of sums; "auto" takes what a model expects to be faster for this call, with
            compiling counted.
        batch_size: images that a device evaluates at once; "auto": 256 on an accelerator; on a CPU
            128 windows or 64 whole images (64 or 16 before JAX 0.12), and of images from 128×128
            on 8 windows or 2 to 4 whole images; fewer if memory is low.
            "fastest" measures instead: both methods if `method` is "auto", and on a CPU other sizes
            too; that pays for long runs, and equal runs may then differ by rounding.
        memory: what "auto" may use on a device, in bytes or as a text such as "2GB" or "512MiB";
            None: a quarter of what is free.
        dtype: of the forward pass, such as "bfloat16"; None: that of the images. Scores and
            heatmaps are float32 at least.
        mesh: devices to spread over: its axis "images" over images, all others over positions. The
            result is the same, bit for bit, for any number of devices.
        progress: True for a bar, or a function (positions done, positions in all).
        reading: what the result's `heatmap` takes where an argument is not given, as a preset has
            it: `occlude(f, x, **jaxviz.presets.captum(15))`; None: drops, averaged.
        class_names: the names of the K classes, for `heatmap` and pictures; None: those that `f`
            has as `class_names`, if any.

    Returns:
        The scores and what can be made of them. After Ctrl-C, what was finished, with a warning.

    Raises:
        ValueError: an argument breaks its rule, an image holds NaN or infinity, or the scorer mixes
            the images of a batch.
        TypeError: an argument is of the wrong kind.
        MemoryError: not even one image fits.

    Example:
        >>> images = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
        >>> occ = occlude(lambda x: x.mean((1, 2)), images, patch=4)
        >>> occ.scores.shape, occ.heatmap().shape
        ((2, 7, 7, 1), (2, 28, 28))

    Source: M. Zeiler and R. Fergus, Visualizing and Understanding Convolutional Networks, 2014,
    doi:10.1007/978-3-319-10590-1_53.
    """
    check_progress(progress)
    check_tolerance(tolerance)
    if batch_size not in ("auto", "fastest"):
        whole_number(batch_size, "batch_size", choices='"auto", "fastest"')
    patches = Patches(patch, stride, margin, border, fill, channels, complement, region)
    reading = checked_reading(reading)
    batch, single = checked_images(images, f)
    grid = patches.grid((batch.shape[1], batch.shape[2]))
    occluder, wanted = patches.occluder(batch, grid), patches.wanted(grid)
    starts = grid.starts[wanted]
    task = make_task(f, batch, occluder, starts, dtype=dtype, mesh=mesh, memory=memory)
    if tolerance is None:
        platform, measure = task.device.platform, batch_size == "fastest"
        evaluators = choose_evaluators(method, grid, task, platform, measure=measure)
        measured = None
    else:
        evaluators, measured = approximate_evaluators(method, grid, task, tolerance, batch_size)
    task = replace(task, evaluators=evaluators)
    if refine is None:
        found = score_all(task, wanted, batch_size, progress)
    elif region is None:
        found = score_refined(task, grid, check_refinement(refine), batch_size, progress)
    else:
        raise ValueError("`refine` chooses the positions by itself: leave `region` out.")
    config = {
        "region": region if region is None or isinstance(region, tuple) else "a mask",
        "refine": refine,
        "tolerance": tolerance,
    }
    result = make_result(task, grid, found, single, config, reading, measured)
    return described(result, f, batch, class_names)
