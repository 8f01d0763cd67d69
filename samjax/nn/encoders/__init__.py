"""Families of image encoders: one table, which all that differs from one to another is looked up in."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from samjax.config import EncoderConfig, SamConfig, ViTConfig
from samjax.execution import Execution
from samjax.nn.encoders import vit, vit_shapes
from samjax.nn.encoders.inference import Declared, Shapes


@dataclasses.dataclass(frozen=True)
class Family:
    """What samjax knows about the encoders of one kind of configuration."""

    name: str
    config: type  # of its configurations, an `EncoderConfig`
    # Of a configuration, the channels of the features, and the execution. A module of (pixels, branch weights, origin,
    # taps) that gives features and taps, as `vit.ViT` does, and the same from a tap on (`resume`).
    build: Callable[[Any, int, Execution], nn.Module]
    resample: Callable[[dict[str, Any], Any], dict[str, Any]]  # parameters for a configuration with another grid
    tap_names: Callable[[Any], tuple[str, ...]]  # outputs that may be asked for by name, in the order of their making
    layer: Callable[
        [Any, str], int
    ]  # of a parameter, by its name in the encoder: 0 at the pixels, then up to depth + 1
    flops: Callable[[Any, int], Sequence[int]]  # operations of one image's features, of so many channels, by layer
    describe: Callable[[Any], str]  # a line for people
    # Names of modules in Meta's and in Hugging Face's checkpoints, by the kind of their parameters: the encoder's rows
    # of `samjax.convert.mapping`. A {} stands for a number. None: Hugging Face's SamModel has no such module.
    keys: Mapping[str, tuple[tuple[str, str | None], ...]]
    # Of the shapes in another program's checkpoint and what is declared beside it: configurations that it may be of,
    # the likeliest first, whose decoder is looked at afterwards. KeyError, ValueError or nothing: it is of another
    # family. None: other programs' checkpoints are not read.
    infer: Callable[[Shapes, Declared], Sequence[SamConfig]] | None = None
    # Of parameters, by regular expressions of their names in the encoder: matrices, both of whose sides are features
    # (for Muon), and which mesh axis each axis lies on (`samjax.sharding`), where the expressions are ends of names.
    matrices: tuple[str, ...] = ()
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    # By what training calls them (q, k, v, qkv, proj, mlp), kernels that may be changed by low-rank factors: regular
    # expressions of names in the encoder, each with the end of the factors' names (`samjax.tuned`).
    low_rank: Mapping[str, tuple[tuple[str, str], ...]] = dataclasses.field(default_factory=dict)


FAMILIES: tuple[Family, ...] = (
    Family(
        "vit",
        ViTConfig,
        build=vit.ViT,
        resample=vit.resample_positions,
        tap_names=vit.tap_names,
        layer=vit.layer,
        flops=vit.flops,
        describe=vit.describe,
        keys=vit.KEYS,
        infer=vit_shapes.infer,
        matrices=vit.MATRICES,
        rules=vit.RULES,
        low_rank=vit.LOW_RANK,
    ),
)


def family_of(config: EncoderConfig) -> Family:
    """The family of a configuration. Raises ValueError if there is none."""
    for family in FAMILIES:
        if isinstance(config, family.config):
            return family
    raise ValueError(f"no family of image encoders has configurations of type {type(config).__name__}")
