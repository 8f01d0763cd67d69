"""Points at which a mask is least certain: where its losses are taken (PointRend, arXiv 1912.08193, section 3.2)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from samjax.ops.points import sample_points


def uncertain_points(
    logits: Float[Array, "h w"],
    candidates: Float32[Array, "candidates 2"],
    random: Float32[Array, "random 2"],
    count: int,
) -> Float32[Array, "count 2"]:
    """Chooses the candidates at which a mask's logits are nearest to zero, and adds random points up to `count`.

    Nothing is differentiated through the choice.

    Args:
        logits: of the mask; between its cells they are interpolated.
        candidates: uniform points, `oversample` times `count` of them, as shares of the image.
        random: uniform points, those of them that are not chosen: (1 - `importance`) · `count`.
        count: of the points; a Python number.
    """
    chosen = count - len(random)
    sampled = sample_points(lax.stop_gradient(logits)[..., None], candidates)[:, 0]
    _, nearest = lax.top_k(-jnp.abs(sampled), chosen)
    return jnp.concatenate([candidates[nearest], random])


def split_count(count: int, oversample: float, importance: float) -> tuple[int, int]:
    """The numbers of candidates and of random points that `uncertain_points` takes for `count` points in all.

    Both are rounded down as PointRend's code does.
    """
    return int(count * oversample), count - int(importance * count)
