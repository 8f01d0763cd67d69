"""Sine positions of a grid's cells (DETR, arXiv 2005.12872, appendix A.4). Always float32."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float32

_TEMPERATURE = 10_000
_EPSILON = 1e-6  # the published code's, against a division by zero


def sine_positions(size: tuple[int, int], features: int) -> Float32[Array, "S features"]:
    """Positions of the cells of a grid of `size` (rows, columns), row by row: first of the row, then of the column.

    Cells count from 1 and are scaled so that the last one is at 2π. Half of the features, a multiple of four, are the
    row's: sine and cosine in turn, of wavelengths from 2π to 10,000·2π.
    """
    rates = _TEMPERATURE ** (jnp.arange(features // 4, dtype=jnp.float32) * (4 / features))

    def along(side: int) -> Float32[Array, "side half"]:
        position = jnp.arange(1, side + 1, dtype=jnp.float32) * (2 * math.pi / (side + _EPSILON))
        phase = position[:, None] / rates[None]
        return jnp.stack([jnp.sin(phase), jnp.cos(phase)], -1).reshape(side, -1)

    of_rows, of_columns = along(size[0])[:, None], along(size[1])[None]
    grid = (*size, features // 2)
    both = jnp.concatenate([jnp.broadcast_to(of_rows, grid), jnp.broadcast_to(of_columns, grid)], -1)
    return both.reshape(-1, features)
