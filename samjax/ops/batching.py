"""Mapping over a batch, some items at a time, and over the devices that it is spread over."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Shaped

_NOT_OF_BATCHES = "tensor"  # the mesh axis of `samjax.sharding` that splits matrix products


def map_batch(function: Callable[..., Any], *batched: Any, together: int | None) -> Any:
    """Maps `function` over the leading axis of pytrees, `together` items at a time; None: all at once.

    Results are stacked along a leading axis. `function` gets None where None is given instead of a pytree, and what it
    closes over is shared by all items and not repeated. Where the items lie on as many devices as are taken together,
    or on a divisor of that, each stays on its device (`deal`), also where `function` uses `on_every_device`.
    """
    first = jax.tree.leaves(batched)[0]
    size = first.shape[0]
    if together is None or together >= size > 1:
        return _together(function, *batched)
    if 1 in (together, size):
        return lax.map(lambda items: function(*items), batched)
    whole = size // together * together
    pieces = jax.tree.map(lambda x: deal(x[:whole], together), batched)
    results = jax.tree.map(undeal, lax.map(lambda items: _together(function, *items), pieces))
    if whole == size:
        return results
    rest = _together(function, *jax.tree.map(lambda x: x[whole:], batched))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), results, rest)


def by_pieces(
    function: Callable[[Shaped[Array, "*B C"]], Shaped[Array, "*B F"]], x: Shaped[Array, "H W C"], size: int | None
) -> Shaped[Array, "H W F"]:
    """Maps a function of many vectors, each by itself, over a grid: over one piece of neighbours after the other.

    So what it makes of a piece on the way stays in cache. A piece has the largest divisor of H·W that is not above
    `size`; None: all together. `function` keeps the dtype.
    """
    height, width, channels = x.shape
    size = height * width if size is None else largest_divisor(height * width, size)
    if size == height * width:
        return function(x)
    flat = x.reshape(height * width, channels)
    features = jax.eval_shape(function, flat).shape[-1]
    # Not `lax.map`, whose results start as zeros: XLA makes those of all layers at once, as soon as the program starts.
    # These start as something of x, at best as x, which they then take the place of.
    results = flat if features == channels else jnp.broadcast_to(flat[:, :1], (len(flat), features))

    def one_piece(results: Array, start: Array) -> tuple[Array, None]:
        source = results if features == channels else flat
        piece = function(lax.dynamic_slice_in_dim(source, start, size))
        return lax.dynamic_update_slice_in_dim(results, piece, start, 0), None

    results, _ = lax.scan(one_piece, results, jnp.arange(0, len(flat), size))
    return results.reshape(height, width, features)


def deal(x: Shaped[Array, "N ..."], together: int) -> Shaped[Array, "K together ..."]:
    """An axis as K pieces, of which each has every K-th item: one of each of `together` neighbouring parts.

    A loop over pieces of neighbours would gather an axis that is spread over devices.
    """
    return jnp.swapaxes(x.reshape(together, -1, *x.shape[1:]), 0, 1)


def undeal(x: Shaped[Array, "K together ..."]) -> Shaped[Array, "N ..."]:
    """The inverse of `deal`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])


def largest_divisor(size: int, at_most: int) -> int:
    """The largest divisor of `size` that is not above `at_most`, which is at least 1."""
    return max(divisor for divisor in range(1, min(size, at_most) + 1) if size % divisor == 0)


def mesh_of(array: Any) -> AbstractMesh | None:
    """The mesh that an array lies on, also while a program is traced; None if it is on one device."""
    sharding = getattr(jax.typeof(array), "sharding", None)
    mesh = jax.sharding.get_abstract_mesh()
    mesh = getattr(sharding, "mesh", mesh) if mesh.empty else mesh
    return None if mesh.empty or mesh.size == 1 else mesh


def on_every_device(function: Callable[..., Any], mesh: AbstractMesh | None) -> Callable[..., Any]:
    """Maps a function of arrays over a mesh, which XLA cannot do by itself for kernels.

    What `map_batch` maps over is spread over the mesh, everything else is whole on every device.
    """
    if mesh is None or mesh.are_all_axes_manual:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)


def _together(function: Callable[..., Any], *batched: Any) -> Any:
    """`function` mapped over pytrees at once, over all devices that can share the items."""
    first = jax.tree.leaves(batched)[0]
    return jax.vmap(function, spmd_axis_name=_axes_of_batch(mesh_of(first), len(first)))(*batched)


def _axes_of_batch(mesh: AbstractMesh | None, size: int) -> tuple[str, ...] | None:
    """Mesh axes that batches of this size can be spread over."""
    if mesh is None or mesh.manual_axes:
        return None
    axes: list[str] = []
    for name, devices in mesh.shape.items():
        others = math.prod(mesh.shape[axis] for axis in axes)
        if name != _NOT_OF_BATCHES and size % (others * devices) == 0:
            axes.append(name)
    return tuple(axes) or None
