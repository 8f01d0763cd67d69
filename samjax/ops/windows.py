"""Non-overlapping square windows over a grid; sizes count its cells (the reference's `window_partition`)."""

import einops
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def pad_to_windows(x: Shaped[Array, "H W *C"], size: int) -> Shaped[Array, "Hp Wp *C"]:
    """Pads a grid with zeros below and to the right until both sides are multiples of `size`."""
    height, width = x.shape[:2]
    return jnp.pad(x, [(0, -height % size), (0, -width % size)] + [(0, 0)] * (x.ndim - 2))


def partition(x: Shaped[Array, "Hp Wp *C"], size: int) -> Shaped[Array, "windows size size *C"]:
    """Cuts a grid into windows of `size` x `size`, row by row.

    Raises `einops.EinopsError`, a RuntimeError, if `size` does not divide both sides.
    """
    return einops.rearrange(x, "(a h) (b w) ... -> (a b) h w ...", h=size, w=size)


def merge(windows: Shaped[Array, "windows size size *C"], grid: tuple[int, int]) -> Shaped[Array, "H W *C"]:
    """Puts windows back into a `grid` (H, W) and cuts the padding off: the inverse of padding and partitioning it."""
    height, width = grid
    size = windows.shape[1]
    padded = einops.rearrange(windows, "(a b) h w ... -> (a h) (b w) ...", a=-(-height // size))
    return padded[:height, :width]
