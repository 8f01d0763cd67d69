"""Arrays of fewer axes against arrays of more, written out: implicit rank promotion can be an error in JAX."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def with_rank(x: Shaped[Array, "*A"], rank: int) -> Shaped[Array, "*B"]:
    """`x` with leading axes of size 1, `rank` axes in all, so that it broadcasts along the last ones."""
    return jnp.expand_dims(x, range(rank - x.ndim))
