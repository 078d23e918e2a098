"""Layers that act only in training, identities at inference: dropout, noise, augmentation.

In training mode (`model.train()`) dropout and noise draw from the `rngs` given to the model's call;
random augmentation stays the identity: it belongs into the input pipeline.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.converter import Converter, Weights, on_every_axis
from jaxviz.keras.layers.shape import Identity

# The fixed point of SELU, for dropout that keeps its mean and variance.
_SELU_LOW = -1.7580993408473766

_AUGMENTATIONS = """RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast
    RandomBrightness RandomShear RandomHue RandomSaturation RandomColorJitter RandomGrayscale
    RandomSharpness RandomPosterization RandomInvert RandomErasing RandomGaussianBlur
    RandomPerspective RandomColorDegeneration RandomElasticTransform MixUp CutMix AugMix RandAugment
    Solarization Equalization""".split()


class Noise(nnx.Module):
    """Dropout and noise: `kind` is "dropout", "alpha", "gaussian dropout" or "gaussian".

    `shape` is the shape in which values are drawn, None where it follows the input; an axis of 1
    is dropped together.
    """

    needs_rngs = True

    def __init__(self, kind: str, amount: float, shape: tuple[int | None, ...] | None = None):
        self.kind, self.amount, self.shape = kind, amount, shape
        self.deterministic = True

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Drop values or add noise in training mode; return x otherwise."""
        if self.deterministic or self.amount == 0:
            return x
        if rngs is None:
            raise ValueError(
                "`rngs` must be given in training mode, for dropout and noise: "
                "`model(images, rngs=nnx.Rngs(0))`."
            )
        key = rngs.dropout()
        if self.kind.startswith("gaussian"):
            return self._gaussian(x, jax.random.normal(key, x.shape, x.dtype))
        shape = self.shape or (None,) * x.ndim
        drawn = tuple(n if s is None else s for s, n in zip(shape, x.shape, strict=True))
        share = jnp.float32(1 - self.amount)  # of one dtype, so that x64 draws the same
        kept = jnp.broadcast_to(jax.random.bernoulli(key, share, drawn), x.shape)
        if self.kind == "dropout":
            return jnp.where(kept, x / (1 - self.amount), jnp.zeros_like(x))
        # Klambauer et al. 2017, arXiv:1706.02515: dropped values become SELU's limit at −∞; what
        # follows restores mean 0 and variance 1.
        factor = ((1 - self.amount) * (1 + self.amount * _SELU_LOW**2)) ** -0.5
        offset = -factor * _SELU_LOW * self.amount
        return factor * jnp.where(kept, x, jnp.full_like(x, _SELU_LOW)) + offset

    def _gaussian(self, x: jax.Array, noise: jax.Array) -> jax.Array:
        if self.kind == "gaussian":
            return x + self.amount * noise
        return x * (1 + math.sqrt(self.amount / (1 - self.amount)) * noise)


def _rate(fields: Fields, name: str = "rate") -> float:
    rate = fields.number(name)
    if not 0 <= rate < 1:
        raise fields.wrong(name, "in [0, 1)")
    return rate


def _dropout(kind: str) -> Converter:
    def build(fields: Fields, weights: Weights) -> Noise:
        shape: Any = fields.raw("noise_shape")
        return Noise(kind, _rate(fields), tuple(shape) if isinstance(shape, list) else None)

    return Converter(build)


def _spatial_dropout(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Noise:
        shape = on_every_axis((1,) * rank, None, channels_first=fields.channels_first())
        return Noise("dropout", _rate(fields), shape)

    return Converter(build)


def _gaussian_noise(fields: Fields, weights: Weights) -> Noise:
    return Noise("gaussian", fields.number("stddev"))


def _stochastic_depth(fields: Fields, weights: Weights) -> Noise:
    return Noise("dropout", _rate(fields, "drop_path_rate"), (None, 1, 1, 1))


def _augmentation(fields: Fields, weights: Weights) -> Identity:
    for name in fields.config:
        fields.raw(name)
    return Identity()


TABLE = {
    "AlphaDropout": _dropout("alpha"),
    "Dropout": _dropout("dropout"),
    "GaussianDropout": _dropout("gaussian dropout"),
    "GaussianNoise": Converter(_gaussian_noise),
    "StochasticDepth": Converter(_stochastic_depth),
    **{f"SpatialDropout{rank}D": _spatial_dropout(rank) for rank in (1, 2, 3)},
    **{name: Converter(_augmentation) for name in _AUGMENTATIONS},
}
