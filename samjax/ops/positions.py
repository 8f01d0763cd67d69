"""Random Fourier features of coordinates (SAM paper, Appendix A; arXiv 2006.10739). Always float32.

Coordinates are (x, y) as shares of the padded model input's (width, height): 0 is its left or upper edge, 1 its right
or lower one, so the centre of pixel x is at (x + 0.5) / width. The reference's `PositionEmbeddingRandom`
(prompt_encoder.py).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32


def fourier_features(unit: Float32[Array, "*B 2"], gaussian: Float32[Array, "2 F"]) -> Float32[Array, "*B 2*F"]:
    """Features of (x, y) coordinates u in [0, 1]: first the sines, then the cosines of 2π(2u - 1)·G."""
    phase = _phase(unit, gaussian)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


def grid_fourier_features(
    rows: Float32[Array, " H"], columns: Float32[Array, " W"], gaussian: Float32[Array, "2 F"]
) -> Float32[Array, "H W 2*F"]:
    """`fourier_features` of a grid's cells, whose centres are at these y (`rows`) and x (`columns`) in [0, 1].

    The phase is a sum of one term a column and one a row, so sine and cosine are needed for H + W positions only and
    are put together by the angle addition formulas: for a 64x64 grid 32 times fewer of them.
    """
    phase_y = _phase(rows[:, None], gaussian[1:])
    phase_x = _phase(columns[:, None], gaussian[:1])
    sin_x, cos_x = jnp.sin(phase_x), jnp.cos(phase_x)

    def one_row(row):
        sin_y, cos_y = (part[None] for part in row)
        return jnp.concatenate([sin_x * cos_y + cos_x * sin_y, cos_x * cos_y - sin_x * sin_y], -1)

    # A loop because XLA would fuse sine and cosine into one expression and compute them for every cell after all.
    return lax.map(one_row, (jnp.sin(phase_y), jnp.cos(phase_y)))


def _phase(unit: Float32[Array, "*B A"], gaussian: Float32[Array, "A F"]) -> Float32[Array, "*B F"]:
    """2π(2u - 1)·G for coordinates u in [0, 1]."""
    # HIGHEST: accelerators would multiply in bfloat16 or TF32 and move a point by pixels.
    return 2 * jnp.pi * jnp.matmul(2 * unit - 1, gaussian, precision=lax.Precision.HIGHEST)
