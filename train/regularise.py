"""Regularisation by leaving branches out at random, as weights that encoder and decoder take."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from samjax.config import SamConfig


def drop_path_weights(sam: SamConfig, rate: float, keys: Key[Array, " B"]) -> Float32[Array, "B depth 2"] | None:
    """Stochastic depth (arXiv 1603.09382): the weights of a ViT block's two branches that `samjax.encode` takes.

    A branch of block i is dropped for an image with probability rate·i / (depth - 1); what stays is scaled up to the
    same expectation.
    """
    if not rate:
        return None
    depth = sam.image_encoder.depth
    keep = 1 - rate * jnp.arange(depth, dtype=jnp.float32)[:, None] / max(depth - 1, 1)

    def sample(key):
        return jnp.where(jax.random.uniform(key, (depth, 2), jnp.float32) < keep, 1 / keep, 0)

    return jax.vmap(sample)(keys)


def dropout_weights(
    sam: SamConfig, rate: float, keys: Key[Array, "B N"], prompt_tokens: int
) -> Float32[Array, "B N depth 3 T C"] | None:
    """Dropout (Srivastava et al., JMLR 2014) of what the decoder's branches add to the tokens: the weights that
    `samjax.decode` takes, 0 with probability `rate`, otherwise scaled up to the same expectation."""
    if not rate:
        return None
    keep = np.float32(1 - rate)
    shape = sam.mask_decoder.depth, 3, sam.output_tokens + prompt_tokens, sam.width
    return jax.vmap(jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape).astype(jnp.float32) / keep))(keys)
