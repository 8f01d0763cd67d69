"""Mapping over a batch, some items at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


def map_batch(function: Callable[..., Any], *batched: Any, together: int | None) -> Any:
    """Maps `function` over the leading axis of pytrees, `together` items at a time; None: all at once.

    Results are stacked along a leading axis. `function` gets None where None is given instead of a pytree, and what it
    closes over is shared by all items and not repeated. Where the items lie on as many devices as are taken together,
    or on a divisor of that, each stays on its device (`dealt`).
    """
    size = jax.tree.leaves(batched)[0].shape[0]
    if together is None or together >= size > 1:
        return jax.vmap(function)(*batched)
    if together > 1 and size % together == 0:
        results = lax.map(lambda items: jax.vmap(function)(*items), jax.tree.map(lambda x: dealt(x, together), batched))
        return jax.tree.map(gathered, results)
    return lax.map(lambda items: function(*items), batched, batch_size=together if together > 1 else None)


def dealt(x: Shaped[Array, "N ..."], together: int) -> Shaped[Array, "K together ..."]:
    """An axis as K pieces, of which each has every K-th item: one of each of `together` neighbouring parts.

    A loop over pieces of neighbours would gather an axis that is spread over devices.
    """
    return jnp.swapaxes(x.reshape(together, -1, *x.shape[1:]), 0, 1)


def gathered(x: Shaped[Array, "K together ..."]) -> Shaped[Array, "N ..."]:
    """The inverse of `dealt`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
