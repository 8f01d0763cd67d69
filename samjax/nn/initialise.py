"""Initial parameters, drawn for the whole tree at once.

Flax would draw each of the hundreds of arrays by a random generator of its own, which XLA takes half a minute to
compile even for the smallest SAM; slices of one draw compile in a second. So modules declare shapes only, and the
distributions stand here, by the name of the leaf.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def initialise(shapes: Any, key: Key[Array, ""]) -> Any:
    """Float32 arrays for a tree of shapes.

    Kernels are U(-1/√fan_in, 1/√fan_in), PyTorch's default and so the reference's; embeddings and the Fourier matrix
    N(0, 1); norm scales 1; biases and position tables 0.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    is_random = [path[-1].key in ("kernel", "embedding", "positional_encoding_gaussian_matrix") for path, _ in leaves]
    total = sum(math.prod(leaf.shape) for (_, leaf), random in zip(leaves, is_random, strict=True) if random)
    uniform = jax.random.uniform(key, (total,), jnp.float32, minval=-1.0, maxval=1.0)
    arrays, start = [], 0
    for (path, leaf), random in zip(leaves, is_random, strict=True):
        name, shape = path[-1].key, leaf.shape
        if not random:
            arrays.append(jnp.full(shape, 1.0 if name == "scale" else 0.0, jnp.float32))
            continue
        draw = uniform[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
        if name == "kernel":
            # (in, 2, 2, out) transposed convolutions: every output sees one position of the kernel.
            is_transposed = any(getattr(entry, "key", None) == "output_upscaling" for entry in path)
            fan_in = shape[0] if is_transposed else math.prod(shape[:-1])
            arrays.append(draw * fan_in**-0.5)
        else:
            arrays.append(math.sqrt(2) * jax.scipy.special.erfinv(draw))
    return jax.tree_util.tree_unflatten(structure, arrays)
