"""Masked attention: each query attends within its own mask (Mask2Former, arXiv 2112.01527, section 3.2.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from samjax.ops.attention.softmax import softmax_times
from samjax.ops.mixed import einsum


def attention_within_masks(
    q: Float[Array, "T heads D"],
    k: Float[Array, "S heads D"],
    v: Float[Array, "S heads D"],
    masks: Bool[Array, "T S"],
) -> Float[Array, "T heads D"]:
    """Multi-head attention in which a query gives weight to the cells of its mask only.

    A query whose mask is empty attends everywhere, as in the published code; the softmax of nothing would be NaN.
    """
    masks = masks | ~masks.any(-1, keepdims=True)
    logits = einsum("tnd,snd->nts", q * q.shape[-1] ** -0.5, k)
    logits = jnp.where(masks[None], logits, -jnp.inf)
    return jnp.moveaxis(softmax_times(logits, jnp.moveaxis(v, 1, 0)), 0, 1)
