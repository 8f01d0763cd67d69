"""Resizing as one small matrix per axis: `rows @ image @ columns.T`, with PyTorch's `interpolate` as the convention.

All of it is align_corners=False without antialiasing. Matrices are built on the host in float64, so that several
resizings and crops in a row compose into one matrix before anything is rounded.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Float64


def resize_matrix(
    source: int, target: int, method: Literal["linear", "cubic"] = "linear"
) -> Float64[np.ndarray, "target source"]:
    """The matrix that resizes an axis of `source` samples to `target` samples.

    "linear" and "cubic" (Keys' kernel with a = -0.75) are `torch.nn.functional.interpolate`'s bilinear and bicubic.
    """
    if source == target:
        return np.eye(source)
    # The reference computes positions in float32; float64 would move some by 1e-4 of a pixel.
    position = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    if method == "linear":
        position = np.maximum(position, 0)
        taps = np.arange(0, 2)
        kernel = _linear
    else:
        taps = np.arange(-1, 3)
        kernel = _cubic
    first = np.floor(position).astype(int)
    index = first[:, None] + taps
    weight = kernel(position[:, None] - index)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], np.clip(index, 0, source - 1)), weight)
    return matrix


def resize(
    x: Float[Array, "*B H W"], rows: Float32[Array, "H2 H"], columns: Float32[Array, "W2 W"]
) -> Float32[Array, "*B H2 W2"]:
    """Resize the last two axes by a matrix for each, in float32 on every backend."""
    return jnp.einsum("yh,...hw,xw->...yx", rows, x.astype(jnp.float32), columns, precision=lax.Precision.HIGHEST)


def resize_axis(
    x: Float[Array, "..."] | Float[np.ndarray, "..."], axis: int, size: int, method: Literal["linear", "cubic"]
) -> Float[Array, "..."]:
    """Resize one axis of a table."""
    if x.shape[axis] == size:
        return jnp.asarray(x)
    matrix = jnp.asarray(resize_matrix(x.shape[axis], size, method), jnp.float32)
    product = jnp.tensordot(matrix, jnp.asarray(x, jnp.float32), (1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis).astype(x.dtype)


def _linear(distance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: Float[np.ndarray, "..."], a: float = -0.75) -> Float[np.ndarray, "..."]:
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
