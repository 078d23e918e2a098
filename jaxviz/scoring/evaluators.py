"""How a block of positions is scored: the whole network on each, or only what each one changes.

An evaluator is a frozen value with two traceable methods. `prepare` is called once per image;
`evaluate` scores some positions of some images at once. Evaluators that are equal do the same, so
that compiled programs are found again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxviz._arguments import Pair
from jaxviz._choices import Method
from jaxviz.incremental import base, make_plan, prepared, update, warn_of_effects
from jaxviz.jaxpr.cpu_gradient import forward
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.occluders import Canvas, LabelOccluder, Occluder, PatchOccluder

Arrays = list[jax.Array]
ScorerCall = Callable[[Sequence[jax.Array], jax.Array], jax.Array]
Local = PatchOccluder | LabelOccluder  # what changes an image within a window that is known


class Evaluator(Protocol):
    """What scores positions."""

    def images_at_once(self, images: int, positions: int) -> int:
        """Return how many images the scorer is given at once, for a block of that shape."""
        ...

    def prepare(self, call: ScorerCall, arrays: Arrays, occluder: Any, image: jax.Array) -> tuple:
        """Return what `evaluate` needs of one image (H, W, C).

        The last part is the canvas, on which nothing depends but the occluded images.
        """
        ...

    def evaluate(
        self,
        call: ScorerCall,
        arrays: Arrays,
        occluder: Any,
        states: Any,
        positions: jax.Array,
        clean: jax.Array,
    ) -> jax.Array:
        """Score positions (B, d), or the clean image where `clean` (B,): (images, B, ..., K)."""
        ...


@dataclass(frozen=True)
class Dense:
    """Run the whole network on every occluded image."""

    def images_at_once(self, images: int, positions: int) -> int:
        """Return all occluded images of a block."""
        return images * positions

    def prepare(
        self, call: ScorerCall, arrays: Arrays, occluder: Occluder, image: jax.Array
    ) -> tuple[jax.Array, Canvas]:
        """Return the image and its canvas."""
        return image, occluder.prepare(image)

    def evaluate(
        self,
        call: ScorerCall,
        arrays: Arrays,
        occluder: Occluder,
        states: tuple[jax.Array, Canvas],
        positions: jax.Array,
        clean: jax.Array,
    ) -> jax.Array:
        """Score the occluded images as one batch."""

        def hide(state, position, is_clean):
            image, canvas = state
            return jnp.where(is_clean, image, occluder.hide(canvas, position))

        rows = jax.vmap(jax.vmap(hide, (None, 0, 0)), (0, None, None))(states, positions, clean)
        scores = forward(call, arrays, rows.reshape(-1, *rows.shape[2:]))
        return scores.reshape(*rows.shape[:2], *scores.shape[1:])


@dataclass(frozen=True)
class Incremental:
    """Run the network once, and again only on the windows that a patch changes.

    Attributes:
        patch: (rows, cols) of the patch.
        step: (rows, cols) that divide the distance of any two starts.
        offset: one of the starts.
        field: approximate: cells of each layer, beyond the patch, to which its effect is followed;
            None: all.
    """

    patch: Pair
    step: Pair
    offset: Pair
    field: int | None = None

    @classmethod
    def on_grid(cls, grid: Grid) -> "Incremental":
        """Return the evaluator for the starts of a grid."""
        axes = (grid.row_starts, grid.col_starts)
        steps = [gcd(*(start - starts[0] for start in starts)) for starts in axes]
        step = [s or size for s, size in zip(steps, grid.image_shape, strict=True)]
        return cls(grid.patch, (step[0], step[1]), (axes[0][0], axes[1][0]))

    @classmethod
    def anywhere(cls, window: Pair) -> "Incremental":
        """Return the evaluator for windows (rows, cols) at any start."""
        return cls(window, (1, 1), (0, 0))

    def images_at_once(self, images: int, positions: int) -> int:
        """Return 1: a plan is made for one image, and mapped over the others."""
        return 1

    def plan(self, call: ScorerCall, arrays: Arrays, image: Any) -> Any:
        """Return the plan for an image (H, W, C), or its shape and dtype."""
        f = Partial(call, arrays)
        step, offset, field = self.step, self.offset, self.field
        return make_plan(f, image, self.patch, step=step, offset=offset, field=field)

    def prepare(
        self, call: ScorerCall, arrays: Arrays, occluder: Local, image: jax.Array
    ) -> tuple[jax.Array, Any, Canvas]:
        """Return the clean scores, what updates read, and the canvas."""
        canvas = occluder.prepare(image)
        under = image if not occluder.complement else occluder.crop(canvas.under)
        plan = self.plan(call, arrays, image)
        warn_of_effects(plan, stacklevel=2)
        known = base(plan, Partial(call, arrays), under)
        scores = known.scores if not occluder.complement else call(arrays, image[None])[0]
        # Without the network's own arrays, which would be copied for every image.
        return scores, known._replace(arrays=[], kernels=()), canvas

    def evaluate(
        self,
        call: ScorerCall,
        arrays: Arrays,
        occluder: Local,
        states: tuple[jax.Array, Any, Canvas],
        positions: jax.Array,
        clean: jax.Array,
    ) -> jax.Array:
        """Score the windows as one batch."""
        image = jax.eval_shape(lambda states: states[1].image[0], states)
        plan = self.plan(call, arrays, image)
        everything = [*arrays, *plan.captured]
        kernels = prepared(plan.body, everything)

        def score(state, position, is_clean):
            scores, known, canvas = state
            known = known._replace(arrays=everything, kernels=kernels)
            patch, start = occluder.patch(canvas, position), occluder.start(position)
            changed = update(plan, known, patch, start)
            return jnp.where(is_clean, scores, changed)

        some = jax.vmap(score, (None, 0, 0))
        if states[0].shape[0] == 1:
            alone = jax.tree.map(lambda x: x[0], states)
            return some(alone, positions, clean)[None]
        return jax.vmap(some, (0, None, None))(states, positions, clean)


def check_method(method: Any, *allowed: str) -> None:
    """Raise ValueError unless it is one of the methods, or of those that are allowed."""
    if method not in (allowed or get_args(Method)):
        raise ValueError(f'`method` must be "auto", "dense" or "incremental": got {method!r}.')


def make_evaluator(method: str, grid: Grid) -> Evaluator:
    """Return the evaluator of one method, "dense" or "incremental", for the starts of a grid."""
    check_method(method, "dense", "incremental")
    return Dense() if method == "dense" else Incremental.on_grid(grid)


class Costs(NamedTuple):
    """What one position takes: operations, and seconds on a CPU by the cost model.

    Besides, how many equations have to be compiled: of the network, and of an update.
    """

    dense: int
    window: int
    seconds_dense: float
    seconds_window: float
    equations: int
    steps: int


def count_costs(
    evaluator: Incremental, call: ScorerCall, arrays: Arrays, image: jax.ShapeDtypeStruct
) -> Costs:
    """Return what one position takes, dense and incremental; from shapes alone."""
    plan = evaluator.plan(call, arrays, image)
    seconds = plan.seconds_dense, plan.seconds_window
    counts = len(plan.body.program.equations), len(plan.body.steps)
    return Costs(plan.flops_dense, plan.flops_window, *seconds, *counts)
