"""LoRA: low-rank changes of kernels are trained, the kernels stay as they are (arXiv 2106.09685)."""

import dataclasses
import re
import zlib
from collections.abc import Set
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.nn.encoders import family_of
from samjax.nn.mask_decoder import LOW_RANK as DECODER
from samjax.tuned import THIRDS, add_factors
from samjax.types import Params

from ..config import TrainConfig, TuneConfig

TARGETS = ("q", "k", "v", "qkv", "proj", "mlp")
PARTS = {"encoder": "image_encoder", "decoder": "mask_decoder"}


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Adds factors A (inputs, rank) and B (rank, outputs) beside kernels: W + s·A·B, with s = alpha / rank.

    A is drawn from U(-1/√inputs, 1/√inputs), as PEFT and SAMed do, by the seed and its own name; B is zero, so that the
    network is at first what it was. Both are trained, and have the names that `samjax.tuned` lists.
    """

    factors: tuple[str, ...]  # such as image_encoder/blocks/0/attn/qkv/lora_q
    rank: int
    scale: float
    seed: int

    def beside(self, whole: Set[str]) -> "LowRank":
        """The same without the factors of kernels that are trained whole, by another mode; as it is if that would leave
        none in one of its parts of the network."""
        left = tuple(factor for factor in self.factors if _kernel(factor) not in whole)
        parts, had = ({factor.partition("/")[0] for factor in factors} for factors in (left, self.factors))
        return dataclasses.replace(self, factors=left) if parts == had else self

    def split(self, params: Params) -> tuple[Params, Params]:
        """(The factors, all parameters)."""
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        sides = {factor: flat[_kernel(factor)].shape for factor in self.factors}
        trained = {}
        key = jax.random.key(self.seed)
        # One draw for all of a size: XLA takes a second to compile each.
        for inputs in sorted({shape[0] for shape in sides.values()}):
            names = [f"{factor}/a" for factor, shape in sides.items() if shape[0] == inputs]
            folded = [jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names]
            bound = inputs**-0.5
            drawn = jax.vmap(
                lambda key, n=inputs, to=bound: jax.random.uniform(key, (n, self.rank), jnp.float32, -to, to)
            )
            trained |= dict(zip(names, drawn(jnp.stack(folded)), strict=True))
        for factor, (_, outputs) in sides.items():
            trained[f"{factor}/b"] = jnp.zeros((self.rank, _columns(factor, outputs)), jnp.float32)
        return unflatten_dict(trained, sep="/"), params

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The network's parameters: the factors are in its kernels."""
        leaves = {**flatten_dict(frozen, sep="/"), **flatten_dict(trained, sep="/")}
        return unflatten_dict(add_factors(leaves, self.scale), sep="/")


def _kernel(factor: str) -> str:
    """The kernel that a factor changes."""
    return f"{factor.rpartition('/')[0]}/kernel"


def _columns(factor: str, outputs: int) -> int:
    """How many of a kernel's columns a factor changes: all, or a third where it is one of q, k and v."""
    return outputs if factor.endswith("/lora") else outputs // len(THIRDS)


def low_rank(config: TrainConfig, sam: SamConfig) -> LowRank:
    """The factors that a recipe's `tune` names.

    Raises ValueError for a target or part that there is not, two targets of the same columns, a late block beyond the
    encoder's depth, and a rank above a kernel's.
    """
    tune, encoder = config.tune, sam.image_encoder
    for option, values, known in (("targets", tune.targets, TARGETS), ("where", tune.where, tuple(PARTS))):
        if unknown := [value for value in values if value not in known]:
            raise ValueError(f"tune.{option}: there is no {unknown[0]!r}; there are {', '.join(known)}")
        if twice := [value for value in known if values.count(value) > 1]:
            raise ValueError(f"tune.{option} names {twice[0]} twice")
        if not values:
            raise ValueError(f"tune.{option} is empty, so lora trains nothing; there are {', '.join(known)}")
    if "qkv" in tune.targets and (twice := [block for block in "qkv" if block in tune.targets]):
        raise ValueError(f"tune.targets: qkv changes the columns of {' and '.join(twice)} already")
    if tune.late is not None:
        if "encoder" not in tune.where:
            raise ValueError("tune.late names blocks of the image encoder, and tune.where has none")
        if tune.late > encoder.depth:
            raise ValueError(f"tune.late is {tune.late}, and the image encoder has {encoder.depth} blocks")
    family, factors = family_of(encoder), []
    shapes: dict[str, Any] = flatten_dict(abstract_params(sam), sep="/")
    for name in shapes:
        part, _, within = name.partition("/")
        kernels = {"image_encoder": family.low_rank, "mask_decoder": DECODER}.get(part, {})
        if part not in [PARTS[where] for where in tune.where]:
            continue
        if part == "image_encoder" and tune.late is not None:
            layer = family.layer(encoder, within)
            if not encoder.depth - tune.late < layer <= encoder.depth:
                continue
        for target in tune.targets:
            for pattern, suffix in kernels.get(target, ()):
                if re.search(pattern, within):
                    factors.append(name.removesuffix("kernel") + suffix)
    for where in tune.where:
        if not any(factor.startswith(f"{PARTS[where]}/") for factor in factors):
            raise ValueError(f"tune.targets {' '.join(tune.targets)} are no kernels of this network's {where}")
    for factor in factors:
        kernel = _kernel(factor)
        sides = shapes[kernel].shape[0], _columns(factor, shapes[kernel].shape[1])
        if tune.rank > min(sides):
            raise ValueError(
                f"tune.rank is {tune.rank}, and {factor.rpartition('/')[2]} changes {sides[0]} x {sides[1]} parameters "
                f"of {kernel}, whose rank is {min(sides)} at most; --tune.rank 4 is usual"
            )
    return LowRank(tuple(factors), tune.rank, factor_scale(tune), config.run.seed)


def factor_scale(tune: TuneConfig) -> float:
    """s of W + s·A·B: alpha / rank, and 1 without an alpha."""
    return 1.0 if tune.alpha is None else tune.alpha / tune.rank
