"""Arrays of fewer axes against arrays of more, written out: implicit rank promotion can be an error in JAX."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def with_rank(x: Shaped[Array, "*A"], rank: int) -> Shaped[Array, "*B"]:
    """`x` with leading axes of size 1 up to `rank` axes in all, so that it broadcasts along the last ones.

    An array that has as many axes or more is returned as it is.
    """
    return jnp.expand_dims(x, range(rank - x.ndim))
