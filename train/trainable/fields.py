"""Modes of tuning that add a field to the network's configuration, and train what it brings."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from samjax.config import SamConfig, ViTConfig
from samjax.model import abstract_params

from ..config import TrainConfig, TuneConfig
from .freezing import parameter_names
from .named import Named, named

_PATCHES = "image_encoder/patch_embed/proj/kernel"


def adapters(config: TrainConfig, sam: SamConfig) -> Named:
    """The bottlenecks beside the encoder's MLPs."""
    return named(parameter_names(abstract_params(sam)), r"^image_encoder/blocks/\d+/adaptmlp/")


def with_adapters(tune: TuneConfig, sam: SamConfig) -> SamConfig:
    """The network with adapters of `tune.adapter`.

    Raises ValueError if its encoder is no plain ViT, or if it has adapters of another width.
    """
    encoder = _plain_vit(sam, "adapter")
    if encoder.adapter not in (0, tune.adapter):
        raise ValueError(f"tune.adapter is {tune.adapter}, and the model has adapters of {encoder.adapter} already")
    return dataclasses.replace(sam, image_encoder=dataclasses.replace(encoder, adapter=tune.adapter))


def patches(config: TrainConfig, sam: SamConfig) -> Named:
    """The patch embedding."""
    return named(parameter_names(abstract_params(sam)), "^image_encoder/patch_embed/")


def with_channels(tune: TuneConfig, sam: SamConfig) -> SamConfig:
    """The network for photos of `tune.channels`.

    Raises ValueError if its encoder is no plain ViT, or if it takes more channels than these.
    """
    encoder = _plain_vit(sam, "patch_embed")
    if tune.channels < encoder.channels:
        raise ValueError(f"tune.channels is {tune.channels}, and the model takes {encoder.channels} channels already")
    return dataclasses.replace(sam, image_encoder=dataclasses.replace(encoder, channels=tune.channels))


def grown_patches(name: str, before: Any, fresh: Any) -> Any:
    """The kernel of the patches for more channels: zero for those that the model has not seen, so that it answers as
    before whatever they show.

    Raises ValueError for another parameter, or another shape than that of more channels.
    """
    rows, columns, channels, width = before.shape
    if name != _PATCHES or fresh.shape != (rows, columns, fresh.shape[2], width) or fresh.shape[2] < channels:
        raise ValueError(f"{name} has shape {before.shape} in model.init, and the network wants {fresh.shape}")
    return jnp.pad(jnp.asarray(before), ((0, 0), (0, 0), (0, fresh.shape[2] - channels), (0, 0)))


def hq_token(config: TrainConfig, sam: SamConfig) -> Named:
    """The parts that HQ-SAM has beside SAM: the token, its MLP and the fusion of features."""
    own = parameter_names(abstract_params(sam.with_hq(False)))
    return Named(frozenset(parameter_names(abstract_params(sam))) - frozenset(own))


def with_hq_token(tune: TuneConfig, sam: SamConfig) -> SamConfig:
    """The network with HQ-SAM's token.

    Raises ValueError if the encoder does not suit it, or if another mode is to train at the same time.
    """
    if tune.mode.strip() != "hq":
        raise ValueError(
            f"tune.mode {tune.mode}: hq trains a token that refines the masks of a SAM which stays as it is, so it "
            "joins no other mode; tune first, and train the token from that run's export"
        )
    return sam.with_hq()


def _plain_vit(sam: SamConfig, mode: str) -> ViTConfig:
    if not isinstance(sam.image_encoder, ViTConfig):
        kind = type(sam.image_encoder).__name__
        raise ValueError(f"tune.mode {mode} needs a plain ViT, and the model's image encoder is a {kind}")
    return sam.image_encoder
