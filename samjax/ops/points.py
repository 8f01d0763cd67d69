"""Values of a grid at points between its cells, and the points that its cells stand for.

Points are (x, y) as shares of the image's (width, height), as in `samjax.ops.positions`: 0 is its left or upper edge, 1
its right or lower one. They are float32 whatever the grid's dtype: in bfloat16 a point of a large image is pixels off.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Shaped

from samjax.ops.broadcasting import with_rank
from samjax.ops.gathering import weighted_rows


def sample_points(grid: Shaped[Array, "H W C"], points: Float32[Array, "*P 2"]) -> Float32[Array, "*P C"]:
    """Interpolates a grid bilinearly at points, with zeros beyond its edges.

    PyTorch's `grid_sample(grid, 2 * points - 1, align_corners=False)`, values and gradients. The grid may hold booleans
    or integers, which are converted where they are read.
    """
    height, width, channels = grid.shape
    return weighted_rows(grid.reshape(-1, channels), *corners(points, (height, width)))


def corners(
    points: Float32[Array, "*P 2"], size: tuple[int, int]
) -> tuple[Int32[Array, "4 ..."], Float32[Array, "4 ..."]]:
    """The four cells around each point, and their weights.

    A cell is numbered row by row in a grid of `size` (rows, columns). Where a point has no cell on one side, the weight
    is zero, and the number that of any cell.
    """
    rows, columns = size
    # Of cells' centres, which have whole numbers.
    position = points * with_rank(jnp.array([columns, rows], jnp.float32), points.ndim) - 0.5
    low = jnp.floor(position)
    (x, y), (right, lower) = (jnp.moveaxis(pair, -1, 0) for pair in (low, position - low))
    indices, weights = [], []
    for dy, of_row in ((0, 1 - lower), (1, lower)):
        for dx, of_column in ((0, 1 - right), (1, right)):
            row, column = y + dy, x + dx
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            row, column = jnp.clip(row, 0, rows - 1), jnp.clip(column, 0, columns - 1)
            indices.append(row.astype(jnp.int32) * columns + column.astype(jnp.int32))
            weights.append(jnp.where(inside, of_row * of_column, 0))
    return jnp.stack(indices), jnp.stack(weights)


def cell_centres(size: tuple[int, int]) -> Float32[Array, "S 2"]:
    """The points that the cells of a grid of `size` (rows, columns) stand for, row by row.

    Cell (x, y) of a grid of stride s stands for the image's pixel coordinates ((x + 0.5)·s, (y + 0.5)·s); as shares of
    the image that is ((x + 0.5) / columns, (y + 0.5) / rows), whatever the stride.
    """
    y, x = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / side for side in size)
    centres = jnp.stack([jnp.broadcast_to(x[None], size), jnp.broadcast_to(y[:, None], size)], -1)
    return centres.reshape(math.prod(size), 2)
