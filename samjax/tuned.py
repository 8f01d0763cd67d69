"""The tuned part of a network, apart from the network: to share it, and to apply it to the base it was tuned from.

A tuned parameter is one of the network's own, by its name, or changes the kernel MODULE/kernel:

    MODULE/lora/{a,b}                a low-rank change of it (`samjax.ops.low_rank`)
    MODULE/lora_{q,k,v}/{a,b}        one of a third of its columns, where queries, keys and values stand side by side
    MODULE/svd/{shift,u,v}           a change of its singular values (`samjax.ops.singular_values`)
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import checkpoint
from samjax.checkpoint import CheckpointError, LazyArray
from samjax.config import MaskThresholds, SamConfig
from samjax.ops.low_rank import add_low_rank
from samjax.ops.singular_values import add_singular
from samjax.types import Params

THIRDS = "qkv"  # of a kernel's columns, in their order
_LOW_RANK = re.compile(r"(?P<module>.+)/lora(?:_(?P<third>[qkv]))?/[ab]")
_SINGULAR = re.compile(r"(?P<module>.+)/svd/(?:shift|u|v)")


@dataclasses.dataclass(frozen=True)
class Base:
    """The checkpoint that a network was tuned from."""

    name: str  # a known one, or the file's
    checksum: str  # of its parameters, equal in every format (`samjax.checkpoint.Description`)
    config: SamConfig


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The tuned part of a network, and what belongs with it."""

    base: Base
    config: SamConfig  # of the tuned network: the base's, but for what the mode adds and for the size of its input
    tune: dict[str, Any]  # the mode and its options, as plain JSON
    scale: float  # of low-rank changes
    leaves: Mapping[str, LazyArray]  # float32, by name
    thresholds: MaskThresholds  # of mask generation
    provenance: dict[str, Any]  # where it comes from, as plain JSON

    def check_base(self, name: str, checksum: str) -> None:
        """Raises `CheckpointError` for another base than the one this was tuned from."""
        if checksum != self.base.checksum:
            raise CheckpointError(
                f"this was tuned from {self.base.name}, whose parameters have the checksum {self.base.checksum}; those "
                f"of {name} have {checksum}. Load it with its own base"
            )

    def apply(self, params: Params) -> Params:
        """The tuned network's parameters, float32, of the base's, which have its checksum and `config.image_size`.

        Raises:
            CheckpointError: the two do not make the network of `config`.
        """
        own = {name: np.asarray(leaf, np.float32) for name, leaf in flatten_dict(params, sep="/").items()}
        try:
            merged = add_changes({**own, **{name: leaf.read() for name, leaf in self.leaves.items()}}, self.scale)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"what was tuned does not fit its base: {type(error).__name__}: {error}") from None
        checkpoint.check_names(self.config, {name: tuple(leaf.shape) for name, leaf in merged.items()})
        return unflatten_dict(merged, sep="/")


def changed_kernel(name: str) -> str | None:
    """The kernel that a parameter changes, by its name; None if it is a network's own parameter."""
    found = _LOW_RANK.fullmatch(name) or _SINGULAR.fullmatch(name)
    return f"{found['module']}/kernel" if found else None


def add_changes(leaves: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """A network's own parameters with all changes added, which stand beside them by name; differentiable.

    Args:
        leaves: float32 arrays.
        scale: s of the low-rank changes.

    Raises:
        KeyError: a part of a change, or the kernel that it changes, is missing.
    """
    return add_shifts(add_factors(leaves, scale))


def add_factors(leaves: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """`add_changes` for low-rank changes; all else is handed on as it is."""
    network = {name: leaf for name, leaf in leaves.items() if not _LOW_RANK.fullmatch(name)}
    for name in leaves:
        if name.endswith("/a") and (found := _LOW_RANK.fullmatch(name)):
            kernel, b = f"{found['module']}/kernel", leaves[f"{name[:-1]}b"]
            first = THIRDS.index(found["third"]) * b.shape[1] if found["third"] else 0
            network[kernel] = add_low_rank(network[kernel], leaves[name], b, scale, first)
    return network


def add_shifts(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """`add_changes` for changes of singular values; all else is handed on as it is."""
    network = {name: leaf for name, leaf in leaves.items() if not _SINGULAR.fullmatch(name)}
    for name in leaves:
        if name.endswith("/shift") and (found := _SINGULAR.fullmatch(name)):
            kernel, beside = f"{found['module']}/kernel", name.removesuffix("shift")
            u, v = leaves[f"{beside}u"], leaves[f"{beside}v"]
            network[kernel] = add_singular(network[kernel], u, leaves[name], v)
    return network
