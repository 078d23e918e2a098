"""Embedding and multi-head attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.converter import Converter, Weight, Weights, check_shape, parameter

_PARTS = ("query_dense", "key_dense", "value_dense", "output_dense")


class Embedding(nnx.Module):
    """A table of vectors, looked up by index."""

    def __init__(self, embedding: Weight):
        self.embedding = parameter(embedding)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Look up indices (N, ...) as vectors (N, ..., features)."""
        return jnp.take(self.embedding[...], x.astype(jnp.int32), axis=0)


class Projection(nnx.Module):
    """A dense layer from features to (heads, features), or back."""

    def __init__(self, kernel: Weight, bias: Weight | None):
        self.kernel, self.bias = parameter(kernel), parameter(bias)

    def __call__(self, x: jax.Array, contracted: int) -> jax.Array:
        """Contract the last `contracted` axes of x with the first ones of the kernel."""
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), contracted)
        if self.bias is None:
            return y
        bias = self.bias[...].astype(y.dtype)
        return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


@dataclass(frozen=True)
class AttentionSpec:
    """The constants of attention."""

    key_dim: int


class MultiHeadAttention(nnx.Module):
    """Σ softmax(q·k / √d)·v for each head, over one axis of positions."""

    def __init__(self, parts: dict[str, Projection], spec: AttentionSpec):
        self.query_dense, self.key_dense = parts["query_dense"], parts["key_dense"]
        self.value_dense, self.output_dense = parts["value_dense"], parts["output_dense"]
        self.spec = spec

    def __call__(
        self,
        query: jax.Array,
        value: jax.Array,
        key: jax.Array | None = None,
        *,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Attend from queries (N, T, features) to values (N, S, features): (N, T, features)."""
        q = self.query_dense(query, 1)
        k = self.key_dense(value if key is None else key, 1)
        v = self.value_dense(value, 1)
        # n: batch, t: queries, s: keys, h: heads, d: features of a head.
        scores = jnp.einsum("nthd,nshd->nhts", q, k) / math.sqrt(self.spec.key_dim)
        if use_causal_mask:
            earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(earlier[None, None], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1)
        y = self.output_dense(jnp.einsum("nhts,nshd->nthd", weights, v), 2)
        return (y, weights) if return_attention_scores else y


def _embedding(fields: Fields, weights: Weights) -> Embedding:
    shape = fields.integer("input_dim"), fields.integer("output_dim")
    check_shape("embeddings", weights["embeddings"], shape)
    fields.raw("mask_zero")
    return Embedding(weights["embeddings"])


def _attention_weights(fields: Fields) -> Sequence[str]:
    kinds = ("kernel", "bias") if fields.boolean("use_bias", True) else ("kernel",)
    return [f"{part}/{kind}" for part in _PARTS for kind in kinds]


def _attention(fields: Fields, weights: Weights) -> MultiHeadAttention:
    heads, key_dim = fields.integer("num_heads"), fields.integer("key_dim")
    value_dim = fields.integer("value_dim", key_dim) if fields.has("value_dim") else key_dim
    fields.raw("value_dim")
    inner = {"query_dense": key_dim, "key_dense": key_dim, "value_dense": value_dim}
    for part, size in inner.items():
        check_shape(f"{part} kernel", weights[f"{part}/kernel"], (None, heads, size))
    check_shape("output_dense kernel", weights["output_dense/kernel"], (heads, value_dim, None))
    for part in _PARTS if "query_dense/bias" in weights else ():
        kernel = weights[f"{part}/kernel"]
        check_shape(
            f"{part} bias", weights[f"{part}/bias"], kernel.shape[-1 if "out" in part else 1 :]
        )
    if fields.raw("attention_axes") not in (None, [1], (1,)):
        raise fields.wrong("attention_axes", "the axis of positions")
    for name in ("dropout", "output_shape", "flash_attention"):
        fields.raw(name)
    for name in ("query_shape", "key_shape", "value_shape"):
        fields.raw(name)
    parts = {p: Projection(weights[f"{p}/kernel"], weights.get(f"{p}/bias")) for p in _PARTS}
    return MultiHeadAttention(parts, AttentionSpec(key_dim))


TABLE = {
    "Embedding": Converter(_embedding, lambda fields: ("embeddings",), keeps_integers=True),
    "MultiHeadAttention": Converter(_attention, _attention_weights),
}
