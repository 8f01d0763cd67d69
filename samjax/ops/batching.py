"""Mapping over a batch, some items at a time."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def map_batch(function: Callable[..., Any], *batched: Any, together: int | None) -> Any:
    """Maps `function` over the leading axis of pytrees, `together` items at a time; None: all at once.

    Results are stacked along a leading axis. `function` gets None where None is given instead of a pytree, and what it
    closes over is shared by all items and not repeated.
    """
    size = jax.tree.leaves(batched)[0].shape[0]
    if together is None or together >= size > 1:
        return jax.vmap(function)(*batched)
    return lax.map(lambda items: function(*items), batched, batch_size=together if together > 1 else None)
