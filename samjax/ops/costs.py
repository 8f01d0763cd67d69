"""Costs of every query for every object, by which they are matched (Mask2Former, arXiv 2112.01527, section 3.3).

They are computed in float32 whatever comes in: sums over 12,544 points in half precision stop growing at a few hundred,
and a difference between two queries is smaller than their rounding.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, Shaped


def class_costs(logits: Float[Array, "Q classes"], classes: Int32[Array, " O"]) -> Float32[Array, "Q O"]:
    """Minus the probability that each query gives to each object's class; the last class is "no object"."""
    return -jax.nn.softmax(logits.astype(jnp.float32), -1)[:, classes]


def mask_costs(logits: Float[Array, "Q P"], masks: Shaped[Array, "O P"]) -> Float32[Array, "Q O"]:
    """Binary cross-entropy of each query's mask logits with each object's mask, a mean over the same P points.

    Masks are 0 to 1. The two parts are summed apart: softplus(x) - x·t would cancel where the logits are large.
    """
    logits, masks = logits.astype(jnp.float32), masks.astype(jnp.float32)
    missed, wrong = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    return (_product(missed, masks) + _product(wrong, 1 - masks)) / logits.shape[-1]


def dice_costs(logits: Float[Array, "Q P"], masks: Shaped[Array, "O P"]) -> Float32[Array, "Q O"]:
    """One minus the soft dice coefficient of each query with each object, one added to both of its terms."""
    shares, masks = jax.nn.sigmoid(logits.astype(jnp.float32)), masks.astype(jnp.float32)
    sums = shares.sum(-1)[:, None] + masks.sum(-1)[None]
    return 1 - (2 * _product(shares, masks) + 1) / (sums + 1)


def _product(queries: Float32[Array, "Q P"], objects: Float32[Array, "O P"]) -> Float32[Array, "Q O"]:
    # HIGHEST: accelerators would multiply in bfloat16 or TF32.
    return jnp.matmul(queries, objects.T, precision=lax.Precision.HIGHEST)
