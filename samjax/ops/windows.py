"""Non-overlapping square windows over a grid of tokens; sides and sizes are in tokens."""

import einops
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def pad_to_windows(x: Shaped[Array, "H W *C"], size: int) -> Shaped[Array, "Hp Wp *C"]:
    """Zeros below and to the right until both sides are multiples of `size`."""
    height, width = x.shape[:2]
    return jnp.pad(x, [(0, -height % size), (0, -width % size)] + [(0, 0)] * (x.ndim - 2))


def partition(x: Shaped[Array, "Hp Wp *C"], size: int) -> Shaped[Array, "windows size size *C"]:
    """Windows of `size` x `size` tokens, row by row; both sides of the grid are multiples of that."""
    return einops.rearrange(x, "(a h) (b w) ... -> (a b) h w ...", h=size, w=size)


def merge(windows: Shaped[Array, "windows size size *C"], grid: tuple[int, int]) -> Shaped[Array, "H W *C"]:
    """The inverse of padding and partitioning a `grid` (H, W): windows put back, padding cut off."""
    height, width = grid
    size = windows.shape[1]
    padded = einops.rearrange(windows, "(a b) h w ... -> (a h) (b w) ...", a=-(-height // size))
    return padded[:height, :width]
