"""Low-rank changes of a matrix (LoRA, arXiv 2106.09685)."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32


def add_low_rank(
    kernel: Float32[Array | np.ndarray, "inputs outputs"],
    a: Float32[Array | np.ndarray, "inputs rank"],
    b: Float32[Array | np.ndarray, "rank columns"],
    scale: float,
    first: int = 0,
) -> Float32[Array, "inputs outputs"]:
    """W + s·A·B, on the columns from `first` on; the product is in full float32 precision on every device.

    The paper writes W as (outputs, inputs), and so W + s·B·A. Where B is zero, the result equals W.
    """
    # The small factor is widened, and not the product: so each device computes its part of a kernel that is spread.
    widened = jnp.pad(b, ((0, 0), (first, kernel.shape[1] - first - b.shape[1])))
    return jnp.asarray(kernel) + scale * jnp.matmul(a, widened, precision=lax.Precision.HIGHEST)
