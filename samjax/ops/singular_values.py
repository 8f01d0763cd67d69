"""Changes of the singular values of a kernel (SAM-PARSER, arXiv 2308.14604).

A kernel of any rank is taken as the matrix (all axes but the last, outputs), whose singular values are those of the
paper's (outputs, inputs·k·k), its transpose but for the order of rows.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32


def decompose(
    kernel: Float32[Array | np.ndarray, "*window outputs"],
) -> tuple[Float32[Array, "rows k"], Float32[Array, " k"], Float32[Array, "k outputs"]]:
    """U, σ (falling) and V of U diag(σ) V, where k is the smaller side of the matrix."""
    u, values, v = jnp.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    return u, values, v


def add_singular(
    kernel: Float32[Array | np.ndarray, "*window outputs"],
    u: Float32[Array | np.ndarray, "rows k"],
    shift: Float32[Array | np.ndarray, " k"],
    v: Float32[Array | np.ndarray, "k outputs"],
) -> Float32[Array, "*window outputs"]:
    """W + U diag(σ - σ₀) V for the shifts σ - σ₀; the product is in full float32 precision on every device.

    Where the shifts are zero, the result equals W: U diag(σ₀) V itself would differ from it by rounding.
    """
    change = jnp.matmul(jnp.asarray(u) * shift[None], v, precision=lax.Precision.HIGHEST)
    return jnp.asarray(kernel) + change.reshape(kernel.shape)
