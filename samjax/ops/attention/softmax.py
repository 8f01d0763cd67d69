"""The softmax that every form of attention shares."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from samjax.ops.mixed import einsum


def softmax(
    logits: Float[Array, "*B T S"], axis: int, dtype: jnp.dtype
) -> tuple[Float[Array, "*B T S"], Float32[Array, "*B _ _"]]:
    """Softmax as (unnormalised weights in `dtype`, their float32 sums along `axis`)."""
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis, keepdims=True)))
    return weights.astype(dtype), weights.sum(axis, keepdims=True)


def softmax_times(logits: Float[Array, "*B T S"], v: Float[Array, "*B S D"]) -> Float[Array, "*B T D"]:
    """softmax(logits) v, divided after the product: T·D divisions instead of T·S, and XLA fuses what is left."""
    weights, sums = softmax(logits, -1, v.dtype)
    return (einsum("...ts,...sd->...td", weights, v) / sums).astype(v.dtype)
