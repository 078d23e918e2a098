"""The occlusion kernel: pure, no jit inside, composable with `jit`, `vmap` and `grad`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._arguments import Pair, whole_number
from jaxviz._choices import Border, Method
from jaxviz.jaxpr.hoist import hoist
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.occlusion.refinement import check_refinement, make_stages
from jaxviz.perturbation.fill import FillLike, check_fill
from jaxviz.perturbation.fills import make_fill
from jaxviz.perturbation.grid import make_grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring.arguments import as_pixels, check_rank
from jaxviz.scoring.evaluators import Evaluator, Incremental, make_evaluator
from jaxviz.scoring.scorer import Scorer, split


def occlusion_scores(
    f: Scorer,
    image: jax.Array,
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    fill: FillLike = 0.0,
    border: Border = "clip",
    method: Method = "auto",
    batch_size: int | None = None,
    refine: tuple[int, float] | None = None,
    field: int | None = None,
) -> jax.Array:
    """Score an image with a patch pasted over it, at every position of a grid.

    scores[i, j] = f(image with the patch at (i·stride − margin, j·stride − margin)).

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K).
        image: (H, W, C), float.
        patch: height and width of the patch in pixels; an int means a square.
        stride: pixels between starts, per axis; None: the patch, so that patches are tiles.
        margin: by how many pixels the first patch starts before the image.
        fill: what the patch is made of, see `jaxviz.fills.make_fill`.
        border: "clip", "valid" or "shift", see `jaxviz.perturbation.grid.Grid`.
        method: "dense", as "auto", runs the whole network at every position; "incremental" runs it
            once, and then again only on what each patch changes.
        batch_size: positions evaluated at a time; None: all in one batch.
        refine: (factor, share), approximate: every factor-th row and column of positions, then that
            share of all where the scores vary most; interpolated between, as in `occlude`.
        field: approximate, with method "incremental": sites of each layer, beyond the patch, to
            which its effect is followed, such as what `occlude(..., tolerance=...)` found, in
            `approximation.field`; convolutions may then take larger tiles, too. None: all.

    Returns:
        (rows, cols, K), the raw scores of all classes.

    Raises:
        ValueError: an argument, or the scorer's output, breaks its rule.

    Example:
        >>> image = jnp.ones((4, 4, 1))
        >>> scores = occlusion_scores(lambda x: x.sum((1, 2)), image, patch=2)
        >>> scores[..., 0].tolist()
        [[12.0, 12.0], [12.0, 12.0]]

    Source: M. Zeiler and R. Fergus, Visualizing and Understanding Convolutional Networks, 2014,
    doi:10.1007/978-3-319-10590-1_53.
    """
    image = as_pixels(image, "image")
    check_rank(image, "image", 3, f=f)
    image = with_channels_last(f, jnp.asarray(image), "image")
    image = image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)
    size = image.shape[0], image.shape[1]
    grid = make_grid(size, patch=patch, stride=stride, margin=margin, border=border)
    filled = make_fill(fill)
    check_fill(filled, image[None])
    if batch_size is not None:
        whole_number(batch_size, "batch_size", choices="None")
    evaluator = make_evaluator("dense" if method == "auto" else method, grid)
    if field is not None:
        evaluator = _narrowed(evaluator, field)
    scorer = split(f)
    known = (scorer.arrays, PatchOccluder(filled, grid.patch))
    states = evaluator.prepare(scorer.call, *known, image)
    states = jax.tree.map(lambda x: x[None], states)

    def evaluate(known: Any, starts: jax.Array, states: Any) -> jax.Array:
        (arrays, occluder), clean = known, jnp.zeros(len(starts), bool)
        return evaluator.evaluate(scorer.call, arrays, occluder, states, starts, clean)[0]

    def score(starts: jax.Array) -> jax.Array:
        """Score starts (n, 2) -> (n, ..., K), so many at a time."""
        count = len(starts) if batch_size is None else min(batch_size, len(starts))
        if count == len(starts):
            return evaluate(known, starts, states)
        padded = jnp.resize(starts, (-(-len(starts) // count), count, 2))
        parts = hoist(evaluate, known, padded[0], states)
        ready = parts.prepare(known)  # kernels are transformed here, not in every chunk
        scores = jax.lax.map(lambda chunk: parts.evaluate(known, ready, chunk, states), padded)
        return scores.reshape(-1, *scores.shape[2:])[: len(starts)]

    starts = jnp.asarray(grid.starts)
    if refine is None:
        scores = score(starts.reshape(-1, 2))
        return scores.reshape(*grid.shape, *scores.shape[1:])
    refinement = check_refinement(refine)
    if refinement.error is not None:
        raise ValueError(
            "`refine` must be (factor, share) here: to end early, scores have to be looked at, as"
            f" `occlude` does: got {refine!r}."
        )
    stages = make_stages(grid.shape, refinement)
    coarse = score(starts[*stages.coarse.T])
    if not stages.count:
        finer, fine = np.zeros((0, 2), int), coarse[:0]
    else:
        finer = stages.finer(jax.lax.stop_gradient(coarse), xp=jnp)
        fine = score(starts[finer[:, 0], finer[:, 1]])
    return stages.scores(coarse, finer, fine, xp=jnp)


def _narrowed(evaluator: Evaluator, field: int) -> Evaluator:
    """Return it with windows that follow a patch for so many sites."""
    if not isinstance(evaluator, Incremental):
        raise ValueError('`field` cuts windows short, which only method "incremental" has.')
    return replace(evaluator, field=whole_number(field, "field", least=0, choices="None"))
