"""Backbones: pixels to features at strides 4, 8, 16 and 32, of which a head takes all. One table.

They are not SAM's encoders (`samjax.nn.encoders`), which give one grid: a head on an encoder splits that into strides.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from samjax.nn.backbones import resnet, swin
from samjax.nn.backbones.config import BackboneConfig, ResNetConfig, SwinConfig
from samjax.nn.layers import Layer


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What samjax knows about the backbones of one kind of configuration."""

    name: str  # Hugging Face's `model_type`
    config: type
    build: Callable[[Any, jnp.dtype], Layer]  # a module of (pixels) that gives a tuple of grids, finest first


BACKBONES: tuple[Backbone, ...] = (
    Backbone("resnet", ResNetConfig, resnet.ResNet),
    Backbone("swin", SwinConfig, swin.Swin),
)


def backbone_of(config: BackboneConfig) -> Backbone:
    """The row of a configuration. Raises ValueError if there is none."""
    for backbone in BACKBONES:
        if isinstance(config, backbone.config):
            return backbone
    raise ValueError(f"no backbone has configurations of type {type(config).__name__}")
