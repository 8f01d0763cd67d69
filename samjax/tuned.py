"""Parameters that are tuned beside a network's own, and their way into it.

By the name of the kernel MODULE/kernel that they change (`add_changes`):

    MODULE/lora/{a,b}                a low-rank change of it (`samjax.ops.low_rank`)
    MODULE/lora_{q,k,v}/{a,b}        one of a third of its columns, where queries, keys and values stand side by side
    MODULE/svd/{shift,u,v}           a change of its singular values (`samjax.ops.singular_values`)
"""

import re
from collections.abc import Mapping
from typing import Any

from samjax.ops.low_rank import add_low_rank
from samjax.ops.singular_values import add_singular

BLOCKS = "qkv"  # of columns, in their order
_LOW_RANK = re.compile(r"(?P<module>.+)/lora(?:_(?P<block>[qkv]))?/[ab]")
_SINGULAR = re.compile(r"(?P<module>.+)/svd/(?:shift|u|v)")


def changed_kernel(name: str) -> str | None:
    """The kernel that a parameter changes, by its name; None if it is a network's own parameter."""
    found = _LOW_RANK.fullmatch(name) or _SINGULAR.fullmatch(name)
    return f"{found['module']}/kernel" if found else None


def add_changes(leaves: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """A network's parameters of its own and what was tuned beside them, all by name; differentiable.

    Args:
        leaves: float32 arrays.
        scale: s of the low-rank changes.

    Raises:
        KeyError: a part of a change, or the kernel that it changes, is missing.
    """
    network = {name: leaf for name, leaf in leaves.items() if changed_kernel(name) is None}
    for name in leaves:
        if name.endswith("/a") and (found := _LOW_RANK.fullmatch(name)):
            kernel, b = changed_kernel(name), leaves[f"{name[:-1]}b"]
            first = BLOCKS.index(found["block"]) * b.shape[1] if found["block"] else 0
            network[kernel] = add_low_rank(network[kernel], leaves[name], b, scale, first)
        elif name.endswith("/shift") and _SINGULAR.fullmatch(name):
            kernel, beside = changed_kernel(name), name.removesuffix("shift")
            u, v = leaves[f"{beside}u"], leaves[f"{beside}v"]
            network[kernel] = add_singular(network[kernel], u, leaves[name], v)
    return network
