"""The occlusion kernel: pure, no jit inside, composable with `jit`, `vmap` and `grad`."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._arguments import Pair
from jaxviz._choices import Border, Method
from jaxviz.jaxpr.hoist import hoist
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.perturbation.fill import FillLike, check_fill
from jaxviz.perturbation.fills import make_fill
from jaxviz.perturbation.grid import make_grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring.arguments import as_pixels, check_batch_size, check_rank
from jaxviz.scoring.evaluators import make_evaluator
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

    Returns:
        (rows, cols, K), the raw scores of all classes.

    Raises:
        ValueError: the image, the grid, the fill or the scorer's output breaks its rule.

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
        check_batch_size(batch_size, "None")
    evaluator = make_evaluator("dense" if method == "auto" else method, grid)
    scorer = split(f)
    known = (scorer.arrays, PatchOccluder(filled, grid.patch))
    states = evaluator.prepare(scorer.call, *known, image)
    states = jax.tree.map(lambda x: x[None], states)

    def evaluate(known: Any, starts: jax.Array, states: Any) -> jax.Array:
        (arrays, occluder), clean = known, jnp.zeros(len(starts), bool)
        return evaluator.evaluate(scorer.call, arrays, occluder, states, starts, clean)[0]

    starts = jnp.asarray(grid.starts.reshape(-1, 2))
    count = grid.size if batch_size is None else min(batch_size, grid.size)
    chunks = -(-grid.size // count)
    padded = jnp.resize(starts, (chunks, count, 2))
    if chunks > 1:
        parts = hoist(evaluate, known, padded[0], states)
        ready = parts.prepare(known)  # kernels are transformed here, not in every chunk
        scores = jax.lax.map(lambda chunk: parts.evaluate(known, ready, chunk, states), padded)
    else:
        scores = evaluate(known, padded[0], states)[None]
    return scores.reshape(-1, *scores.shape[2:])[: grid.size].reshape(
        *grid.shape, *scores.shape[2:]
    )
