"""The mesh, and which axis of which parameter lies on it: named rules, of each family of encoders and of the rest.

Three axes: "data" has copies of the parameters and parts of the batch; "fsdp" has parts of both (ZeRO-3, the parameters
are gathered when they are used); "tensor" splits the matrix products themselves. Optimiser state and averages follow
the same table, because their paths end alike.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from samjax.config import EncoderConfig
from samjax.nn.encoders import family_of

AXES = ("data", "fsdp", "tensor")

# The end of a parameter's name, and the mesh axis of each of its own axes, counted from the last. The first rule that
# fits counts; what no rule names, and every axis whose size the mesh does not divide, is whole on every device. These
# are for what is not in the image encoder, whose family has its own (`samjax.nn.encoders`).
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(q_proj|k_proj|v_proj|lin1)/kernel", ("fsdp", "tensor")),  # spread what comes out: heads, hidden units
    (r"(q_proj|k_proj|v_proj|lin1)/bias", ("tensor",)),
    (r"(out_proj|lin2)/kernel", ("tensor", "fsdp")),  # and gather it again
    # Low-rank factors (`samjax.tuned`) lie as the axis of the kernel that each has.
    (r"(q_proj|k_proj|v_proj|lin1)/lora/a", ("fsdp", None)),
    (r"(q_proj|k_proj|v_proj|lin1)/lora/b", (None, "tensor")),
    (r"(out_proj|lin2)/lora/a", ("tensor", None)),
    (r"(out_proj|lin2)/lora/b", (None, "fsdp")),
    (r"(output_upscaling/\d/kernel|mask_downscaling/\d/kernel)", ("fsdp",)),
    (r"(output_hypernetworks_mlps/\d|iou_prediction_head)/layers/\d/kernel", ("fsdp", None)),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (or of `devices`) with these sizes; one of them may be -1: what the others leave.

    Raises ValueError if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) == 1 and known > 0 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if min(sizes) < 1 or int(np.prod(sizes)) != len(devices):
        raise ValueError(
            f"a mesh of data {data} x fsdp {fsdp} x tensor {tensor} does not fit {len(devices)} device(s); "
            "the three must multiply to the number of devices, and one may be -1"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def described(mesh: Mesh) -> str:
    """A mesh in words, e.g. "2 devices (cpu): data 2"."""
    kind = mesh.devices.flat[0].device_kind
    if mesh.size == 1:
        return f"1 device ({kind})"
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} devices ({kind}): {axes}"


def partition(name: str, shape: tuple[int, ...], mesh: Mesh, encoder: EncoderConfig) -> P:
    """The `PartitionSpec` of a parameter of this shape, by the rules; whole on every device if none of them names it.

    Args:
        name: its path, "image_encoder/blocks/0/attn/qkv/kernel"; for optimiser state and averages, whose paths end with
            the parameter's, the same rules hold.
        shape: its shape.
        mesh: what it is to lie on.
        encoder: of the model, whose family has rules for the image encoder's parameters.
    """
    rules = family_of(encoder).rules if re.search(r"(^|/)image_encoder/", name) else RULES
    for pattern, axes in rules:
        if re.search(rf"(^|/){pattern}$", name) and len(shape) >= len(axes):
            axes = (None,) * (len(shape) - len(axes)) + axes
            sides = zip(axes, shape, strict=True)
            return P(*(axis if axis and side % mesh.shape[axis] == 0 else None for axis, side in sides))
    return P()


def shardings(tree: Any, mesh: Mesh, encoder: EncoderConfig) -> Any:
    """The `NamedSharding` of every leaf of a tree of parameters, optimiser state or both (arrays or shapes).

    `encoder` is the model's image encoder.
    """

    def of(path, leaf):
        return NamedSharding(mesh, partition(path_name(path), leaf.shape, mesh, encoder))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose leading axis is the image: spread over "data" and "fsdp" together."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def path_name(path: Sequence[Any]) -> str:
    """A key path of `jax.tree_util` as "a/b/c"."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path)
