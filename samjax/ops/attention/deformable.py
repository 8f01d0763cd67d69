"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, 4.1): each query looks at a few points."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from samjax.ops.gathering import weighted_rows
from samjax.ops.points import corners


def deformable_attention(
    values: Float[Array, "S heads D"],
    sizes: tuple[tuple[int, int], ...],
    points: Float32[Array, "T heads levels P 2"],
    weights: Float32[Array, "T heads levels P"],
) -> Float[Array, "T heads D"]:
    """Sums of values at P points of each level, interpolated bilinearly, with zeros beyond the levels' edges.

    Args:
        values: of the cells of all levels, one level after the other, each row by row.
        sizes: (rows, columns) of the levels.
        points: (x, y) of each query, as shares of the image.
        weights: of the points; a query's sum to one over levels and points.
    """
    queries, heads, _, _ = weights.shape
    head = jnp.arange(heads, dtype=jnp.int32)[None, None]
    rows, shares, start = [], [], 0
    for level, size in enumerate(sizes):
        cells, share = corners(jnp.moveaxis(points[:, :, level], 2, 0), size)  # (4, P, T, heads)
        share = share * jnp.moveaxis(weights[:, :, level], 2, 0)[None]
        rows.append(((cells + start) * heads).reshape(-1, queries, heads) + head)
        shares.append(share.reshape(-1, queries, heads))
        start += size[0] * size[1]
    if start != len(values):
        raise ValueError(f"levels of {sizes} have {start} cells, got values of {len(values)}")
    table = values.reshape(-1, values.shape[-1])
    return weighted_rows(table, jnp.concatenate(rows), jnp.concatenate(shares)).astype(values.dtype)
