"""Mapping over a batch, some items at a time, and over the devices that it is spread over."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

_NOT_OF_BATCHES = "tensor"  # the mesh axis of `samjax.sharding` that splits matrix products


def map_batch(function: Callable[..., Any], *batched: Any, together: int | None) -> Any:
    """Maps `function` over the leading axis of pytrees, `together` items at a time; None: all at once.

    Results are stacked along a leading axis. `function` gets None where None is given instead of a pytree, and what it
    closes over is shared by all items and not repeated. All at once, the items of arrays on a mesh are spread over it,
    as far as their number can be divided, where `function` uses `on_every_device`.
    """
    first = jax.tree.leaves(batched)[0]
    size = first.shape[0]
    if together is None or together >= size > 1:
        axes = _axes_of_batch(mesh_of(first), size)
        return jax.vmap(function, spmd_axis_name=axes)(*batched)
    return lax.map(lambda items: function(*items), batched, batch_size=together if together > 1 else None)


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


def _axes_of_batch(mesh: AbstractMesh | None, size: int) -> tuple[str, ...] | None:
    """Mesh axes that batches of this size can be spread over."""
    if mesh is None:
        return None
    axes: list[str] = []
    for name, devices in mesh.shape.items():
        others = math.prod(mesh.shape[axis] for axis in axes)
        if name != _NOT_OF_BATCHES and name not in mesh.manual_axes and size % (others * devices) == 0:
            axes.append(name)
    return tuple(axes) or None
