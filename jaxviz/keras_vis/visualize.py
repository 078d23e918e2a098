"""Draw what keras-vis draws, number for number: class images, saliency, Grad-CAM."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy import ndimage

from jaxviz._arguments import whole_number
from jaxviz.jaxpr.keys import checked_key
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.keras import KerasModel
from jaxviz.keras_vis.calls import called_as
from jaxviz.keras_vis.losses import losses, output_or
from jaxviz.keras_vis.modifiers import (
    InputModifier,
    Modifier,
    gradient_modifier,
    normalize,
    print_losses,
)
from jaxviz.layers import Layer, ScorerLike, activations, as_scorer, layer_names, resolve
from jaxviz.scoring.arguments import as_pixels, check_rank, checked_image_shape


@called_as(
    *("model", "layer", "filter_indices", "wrt", "seed_input", "input_range"),
    *("backprop_modifier", "grad_modifier", "act_max_weight", "lp_norm_weight", "tv_weight"),
)
def visualize_activation(
    model: ScorerLike,
    layer: Layer = None,
    filter_indices: int | Sequence[int] | None = None,
    *,
    seed_input: ArrayLike | None = None,
    input_range: tuple[float, float] = (0, 255),
    act_max_weight: float = 1,
    lp_norm_weight: float = 10,
    tv_weight: float = 10,
    max_iter: int = 200,
    wrt: Layer = None,
    input_modifiers: Sequence[InputModifier] | None = None,
    backprop_modifier: str | None = None,
    grad_modifier: Modifier = None,
    callbacks: Sequence[Callable[..., object]] | None = None,
    verbose: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    key: jax.Array | None = None,
) -> np.ndarray:
    """Find the image that keras-vis finds for filters of a layer.

    It minimises act_max_weight·A + lp_norm_weight·LP + tv_weight·TV with A = −Σ mean(out[..., i]),
    LP = (Σ|x|⁶)^(1/6) / N, TV = Σ|∇x|² / N by RMSprop on the normalised gradient: g ← g / |g|,
    c ← 0.95·c + 0.05·g², x ← x − g / √(c + 1e-7).

    Args:
        model: an adapter model, or any scorer.
        layer: a layer's name or index; None or -1 for the output.
        filter_indices: which filters, together; None for the whole layer.
        seed_input: (H, W, C) to start from; None for noise about the middle of the range.
        input_range: (lowest, highest) pixel; the result is uint8 when both are integers.
        act_max_weight: weight of A; terms of weight 0 are left out.
        lp_norm_weight: weight of LP.
        tv_weight: weight of TV.
        max_iter: number of steps.
        wrt: a layer to differentiate by; the image then stays as it is, for the callbacks to see.
        input_modifiers: such as `Jitter`; `pre` before each step, `post` after, in reverse.
        backprop_modifier: None, "guided", "rectified" (also "relu", "deconv").
        grad_modifier: None, "negate", "absolute", "invert", "relu", "small_values", or a function.
        callbacks: called with (step, {term: value}, loss, gradient, value of `wrt` or image).
        verbose: print the losses of every step.
        image_shape: (H, W, C) for a scorer without `input_shape`.
        key: a random key for the start; None for `jax.random.key(0)`.

    Returns:
        (H, W, C): the image after the step with the smallest loss before it, normalised.

    Raises:
        ValueError: a layer or filter is unknown, all weights are 0, or no loss was finite.

    Example:
        >>> import jaxviz.keras_vis as kv
        >>> f = lambda images: images.mean((1, 2))
        >>> kv.visualize_activation(f, None, 0, image_shape=(4, 4, 3), max_iter=2).dtype
        dtype('uint8')
    """
    max_iter = whole_number(max_iter, "max_iter")
    low, high = input_range
    if not low < high:
        raise ValueError(f"`input_range` must be (lowest, highest): got {input_range}.")
    weights = {"activation": act_max_weight, "lp_norm": lp_norm_weight}
    weights = {**weights, "total_variation": tv_weight}
    image = _seed(model, seed_input, image_shape, input_range, key)
    loss_of = losses(model, layer, filter_indices, weights, backprop_modifier, wrt, image)
    grad_modifier = gradient_modifier(grad_modifier)
    input_modifiers = list(input_modifiers or ())
    callbacks = [*(callbacks or ()), *([print_losses] if verbose else [])]
    cache, best, best_image = jnp.zeros_like(image), np.inf, None
    for step in range(max_iter):
        for modifier in input_modifiers:
            image = jnp.asarray(modifier.pre(image))
        terms, loss, gradient, value = loss_of(image)
        gradient = jnp.asarray(grad_modifier(_unit_length(gradient)))
        for callback in callbacks:
            named = {name: float(term) for name, term in terms.items()}
            callback(step, named, float(loss), np.asarray(gradient), np.asarray(value))
        if wrt is None:
            image, cache = _rmsprop(image, cache, gradient)
        for modifier in reversed(input_modifiers):
            image = jnp.asarray(modifier.post(image))
        if float(loss) < best:
            best, best_image = float(loss), image
    if best_image is None:
        raise ValueError("no step had a finite loss: start from another `seed_input`.")
    return _shown(np.asarray(best_image[0]), input_range)


@called_as(
    *("model", "layer", "filter_indices", "seed_input", "wrt"),
    *("backprop_modifier", "grad_modifier", "keepdims"),
)
def visualize_saliency(
    model: ScorerLike,
    layer: Layer,
    filter_indices: int | Sequence[int] | None,
    seed_input: ArrayLike,
    *,
    wrt: Layer = None,
    backprop_modifier: str | None = None,
    grad_modifier: Modifier = "absolute",
    keepdims: bool = False,
) -> np.ndarray:
    """Map where pixels move filters of a layer: the largest |∂ Σ mean(out[..., i]) / ∂x|.

    Args:
        model: an adapter model, or any scorer.
        layer: a layer's name or index; None or -1 for the output.
        filter_indices: which filters, together; None for the whole layer.
        seed_input: the image, (H, W, C).
        wrt: a layer to differentiate by instead of the image.
        backprop_modifier: None, "guided", "rectified" (also "relu", "deconv").
        grad_modifier: None, "negate", "absolute", "invert", "relu", "small_values", or a function.
        keepdims: keep the channels instead of taking their maximum.

    Returns:
        (H, W), or (H, W, C) with `keepdims`; scaled to 0…1 by (g − min) / (max − min + 1e-7).

    Raises:
        ValueError: a layer or filter is unknown.

    Example:
        >>> import jax.numpy as jnp, jaxviz.keras_vis as kv
        >>> f = lambda images: (images**2).mean((1, 2))
        >>> kv.visualize_saliency(f, None, 0, jnp.eye(4)[..., None]).shape
        (4, 4)

    Source:
        Simonyan, Vedaldi, Zisserman, 2013, arXiv:1312.6034.
    """
    image = _given(model, seed_input)
    loss_of = losses(
        model, layer, filter_indices, {"activation": -1.0}, backprop_modifier, wrt, image
    )
    gradient = gradient_modifier(grad_modifier)(np.asarray(loss_of(image)[2]))
    gradient = np.asarray(gradient)
    return normalize(gradient if keepdims else gradient.max(-1))[0]


@called_as(
    *("model", "layer", "filter_indices", "seed_input", "penultimate"),
    *("backprop_modifier", "grad_modifier"),
)
def visualize_cam(
    model: ScorerLike,
    layer: Layer,
    filter_indices: int | Sequence[int] | None,
    seed_input: ArrayLike,
    *,
    penultimate: Layer = None,
    backprop_modifier: str | None = None,
    grad_modifier: Modifier = None,
) -> np.ndarray:
    """Compute Grad-CAM as keras-vis does: relu(Σ_k w_k·a_k), w_k the mean of ∂/∂a_k over sites.

    keras-vis divides the gradient by its largest value, whatever the sign, so that a layer whose
    gradients are all negative lights up. Here it is divided by the size of that value: the same
    numbers wherever it is positive, and 0 everywhere for evidence against the filters alone.

    Args:
        model: an adapter model, or any scorer.
        layer: a layer's name or index; None or -1 for the output.
        filter_indices: which filters, together; None for the whole layer.
        seed_input: the image, (H, W, C).
        penultimate: the layer a; None for the last convolution or pooling before `layer`.
        backprop_modifier: None, "guided", "rectified" (also "relu", "deconv").
        grad_modifier: None, "negate", "absolute", "invert", "relu", "small_values", or a function.

    Returns:
        (H, W): enlarged by a cubic spline and scaled to 0…1; of a signal, (1, L).

    Raises:
        ValueError: a layer or filter is unknown, or none before `layer` has positions.

    Example:
        >>> import jax.numpy as jnp, jaxviz.keras_vis as kv
        >>> from jaxviz.layers import tag
        >>> f = lambda images: tag("squares", images[:, ::2, ::2] ** 2).mean((1, 2))
        >>> kv.visualize_cam(f, None, 0, jnp.eye(4)[..., None]).shape
        (4, 4)

    Source:
        Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.
    """
    image = _given(model, seed_input)
    if penultimate is None:
        penultimate = _penultimate(model, layer, image)
    loss_of = losses(
        model, layer, filter_indices, {"activation": -1.0}, backprop_modifier, penultimate, image
    )
    _, _, gradient, value = loss_of(image)
    value, gradient = (np.asarray(x[:, None] if x.ndim == 3 else x) for x in (value, gradient))
    gradient = np.asarray(gradient_modifier(grad_modifier)(gradient))
    gradient = gradient / (abs(gradient.max()) + 1e-7)
    weights = gradient.mean((0, 1, 2))
    heatmap = np.maximum(value[0] @ weights, 0)
    zoom = [i / j for i, j in zip(image.shape[1:3], heatmap.shape, strict=True)]
    return normalize(np.asarray(ndimage.zoom(heatmap, zoom)))


@jax.jit
def _unit_length(gradient: jax.Array) -> jax.Array:
    return gradient * jax.lax.rsqrt(jnp.maximum(jnp.square(gradient).sum(), 1e-12))


@jax.jit
def _rmsprop(image: jax.Array, cache: jax.Array, gradient: jax.Array) -> Any:
    cache = 0.95 * cache + 0.05 * jnp.square(gradient)
    return image - gradient / jnp.sqrt(cache + 1e-7), cache


def _seed(
    model: Any, seed: Any, image_shape: Any, input_range: tuple[float, float], key: Any
) -> jax.Array:
    """Return the image (1, H, W, C) to start from: the one given, or noise about the middle."""
    if seed is not None:
        return _given(model, seed)
    shape = checked_image_shape(model, image_shape)
    key = checked_key(key)
    low, high = input_range
    noise = jax.random.uniform(key, (1, *shape), jnp.float32)
    noise = (noise - noise.mean()) / (noise.std() + 1e-7)
    return noise * (0.05 * (high - low)) + (low + high) / 2


def _given(model: Any, seed: Any) -> jax.Array:
    """Return a given image, (H, W, C) or as the model takes it, as floats (1, H, W, C)."""
    image = as_pixels(seed, "seed_input")
    image = image[None] if image.ndim == 3 else image
    check_rank(image, "seed_input", 4, f=model)
    if image.shape[0] != 1:
        raise ValueError(f"`seed_input` must be one image (H, W, C): got {np.shape(seed)}.")
    image = with_channels_last(model, jnp.asarray(image), "seed_input")
    return image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)


def _shown(image: np.ndarray, input_range: tuple[float, float]) -> np.ndarray:
    """Do keras-vis's deprocess_input: standardise, lay a tenth about the middle, clip."""
    low, high = input_range
    image = image - image.mean()
    image = image / (image.std() + 1e-7)
    image = np.clip(0.1 * image + 0.5, 0, 1)
    image = (high - low) * image + low
    whole = all(isinstance(bound, int | np.integer) for bound in input_range)
    return np.clip(image, low, high).astype(np.uint8) if whole else image


def _penultimate(model: Any, layer: Layer, image: jax.Array) -> str:
    """Return the nearest convolution or pooling before a layer; else the nearest with sites."""
    layer = output_or(model, layer)
    model = as_scorer(model)
    names = layer_names(model, image)
    before = names[: names.index(resolve(layer, names))] if layer is not None else names
    for name in reversed(before):
        if isinstance(model, KerasModel):
            kind = type(model.layer(name)).__name__
            fits = "Conv" in kind or kind == "Pool"
        else:
            rank = activations(model, image, name)[name].ndim
            fits = rank == 4 or (rank == 3 and image.shape[1] == 1)
        if fits:
            return name
    raise ValueError("`penultimate` must be given: no layer before has positions.")
