"""Attention between a few tokens and the many places of an image, with projections folded into the tokens.

Projecting S image tokens costs 2·S·C·heads·D multiplications. Where the tokens are few it is less work to take the
projection to them: q·(K x) = (q K)·x and Σ w (V x) = V (Σ w x) are the same numbers but for rounding.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from samjax.ops.attention.softmax import softmax, softmax_times
from samjax.ops.mixed import einsum


class Projection(NamedTuple):
    """A linear layer to the channels of the heads, as parameters."""

    kernel: Float[Array, "C heads D"]
    bias: Float[Array, "heads D"]

    def __call__(self, x: Float[Array, "S C"]) -> Float[Array, "S heads D"]:
        flat = x @ self.kernel.reshape(x.shape[-1], -1) + self.bias.reshape(1, -1)
        return flat.reshape(len(x), *self.bias.shape)


def folds(tokens: int, head_dim: int) -> bool:
    """True if projecting so few tokens to the image's channels, for each head, is less work than projecting the image
    to the heads' channels."""
    return tokens <= head_dim


def masked_attention(
    q: Float[Array, "T heads D"],
    k: Float[Array, "S heads D"],
    v: Float[Array, "S heads D"],
    key_valid: Bool[Array, " S"] | None = None,
) -> Float[Array, "T heads D"]:
    """Multi-head attention in which keys that are not valid get weight exactly zero.

    Without `key_valid` all are valid; where none is, the result is NaN.
    """
    logits = einsum("tnd,snd->nts", q * q.shape[-1] ** -0.5, k)
    if key_valid is not None:
        logits = jnp.where(key_valid, logits, -jnp.inf)
    return jnp.moveaxis(softmax_times(logits, jnp.moveaxis(v, 1, 0)), 0, 1)


def tokens_to_image(
    q: Float[Array, "T heads D"],
    image_with_position: Float[Array, "S C"],
    image: Float[Array, "S C"],
    k: Projection,
    v: Projection,
) -> Float[Array, "T heads D"]:
    """Tokens attend to an image: `masked_attention` to keys k(image_with_position) and values v(image).

    Folded, this takes 2·T·heads·S·C multiplications instead of 2·S·C·heads·D. The keys' bias shifts all logits of a
    query alike, which softmax does not see; weights sum to one, so the values' bias is added once.
    """
    if not folds(q.shape[0], q.shape[-1]):
        return masked_attention(q, k(image_with_position), v(image))
    folded = einsum("tnd,cnd->ntc", q * q.shape[-1] ** -0.5, k.kernel).astype(q.dtype)
    weights, sums = softmax(einsum("ntc,sc->nts", folded, image_with_position), -1, q.dtype)
    context = (einsum("nts,sc->ntc", weights, image) / sums).astype(q.dtype)
    return einsum("ntc,cnd->tnd", context, v.kernel).astype(q.dtype) + v.bias[None]


def image_logits(
    q: Float[Array, "S heads D"] | Projection, image: Float[Array, "S C"] | None, k: Float[Array, "T heads D"]
) -> Float32[Array, "heads T S"]:
    """Logits of an image's attention to tokens, image tokens last, so that the softmax over few tokens runs along full
    vectors.

    `q` are the image's queries, where they are at hand, or their projection, for an `image` that has its position.
    """
    scaled = k * k.shape[-1] ** -0.5
    if not isinstance(q, Projection):
        return einsum("snd,tnd->nts", q, scaled)
    assert image is not None
    if not folds(k.shape[0], k.shape[-1]):
        return einsum("snd,tnd->nts", q(image), scaled)
    folded = jnp.einsum("cnd,tnd->ntc", q.kernel, scaled)
    constant = einsum("nd,tnd->nt", q.bias, scaled)
    return einsum("ntc,sc->nts", folded, image) + constant[:, :, None]


def image_to_tokens(
    logits: Float[Array, "heads T S"],
    v: Float[Array, "T heads D"],
    out_kernel: Float[Array, "heads D C"],
    out_bias: Float[Array, " C"],
    key_valid: Bool[Array, " T"],
) -> Float[Array, "S C"]:
    """An image attends to tokens: softmax of `image_logits` over the valid ones, applied to values, and projected.

    Where no token is valid the result is NaN.
    """
    weights, sums = softmax(jnp.where(key_valid[:, None], logits, -jnp.inf), 1, jnp.dtype(jnp.float32))
    weights = (weights / sums).astype(v.dtype)
    if not folds(v.shape[0], v.shape[-1]):
        values = einsum("nts,tnd->snd", weights, v).astype(v.dtype)
        return values.reshape(len(values), -1) @ out_kernel.reshape(-1, out_kernel.shape[-1]) + out_bias[None]
    folded = einsum("tnd,ndc->ntc", v, out_kernel).astype(v.dtype)
    return einsum("nts,ntc->sc", weights, folded).astype(v.dtype) + out_bias[None]
