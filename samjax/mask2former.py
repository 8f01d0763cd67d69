"""Mask2Former as pure functions: a backbone and a head that finds and names all objects of an image, without prompts.

Its checkpoints come from Hugging Face (`samjax.convert.mask2former`). On the features of SAM's encoder the head is the
same (`samjax.nn.heads`).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Array, Float32, Key

from samjax.execution import Execution
from samjax.nn.backbones import backbone_of
from samjax.nn.backbones.config import BackboneConfig
from samjax.nn.heads.config import Mask2FormerHeadConfig
from samjax.nn.heads.mask2former import Mask2FormerHead
from samjax.nn.heads.masked_decoder import Instances
from samjax.nn.initialise import initialise
from samjax.ops.batching import map_batch
from samjax.types import Params


@dataclasses.dataclass(frozen=True)
class Mask2FormerConfig:
    """Everything that decides names, shapes and mathematics. The number of classes is the head's."""

    backbone: BackboneConfig
    head: Mask2FormerHeadConfig


def predict(
    config: Mask2FormerConfig,
    params: Params,
    pixels: Float32[Array | np.ndarray, "*B h w channels"],
    execution: Execution,
) -> tuple[Instances, ...]:
    """Answers of the queries for an image, or for each of a batch of one size.

    The first is before the decoder's first layer, the others are behind each, and the last is the result; where only
    that is used, XLA computes no other's masks.

    Args:
        config: the model.
        params: its parameters.
        pixels: of red, green and blue, less ImageNet's mean and divided by its deviation. Any size will do; mask logits
            have that of the backbone's finest features, a quarter of it, rounded up.
        execution: how to compute.

    Raises:
        ValueError: pixels of another number of axes or channels.
    """
    pixels = jnp.asarray(pixels)
    if pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        raise ValueError(f"pixels must have shape (h, w, 3) or (images, h, w, 3), got {pixels.shape}")
    backbone, head = _modules(config, execution.dtype)

    def one(pixels: Any) -> tuple[Instances, ...]:
        features = backbone.apply({"params": params["backbone"]}, pixels)
        return head.apply({"params": params["head"]}, features)

    return one(pixels) if pixels.ndim == 3 else map_batch(one, pixels, together=execution.images_per_step)


def _modules(config: Mask2FormerConfig, dtype: jnp.dtype) -> tuple[Any, Any]:
    backbone = backbone_of(config.backbone).build(config.backbone, dtype)
    return backbone, Mask2FormerHead(config.head, config.backbone.channels, dtype)


@functools.cache
def declared_params(config: Mask2FormerConfig) -> Params:
    """Shapes of the parameters with what they start from, without computing any."""
    backbone, head = _modules(config, Execution().dtype)

    def init():
        key = jax.random.key(0)
        return {
            "backbone": backbone.init(key, method="declare")["params"],
            "head": head.init(key, method="declare")["params"],
        }

    return jax.eval_shape(init)


@functools.cache
def abstract_params(config: Mask2FormerConfig) -> Params:
    """Names and shapes of the parameters, without computing any."""
    return meta.unbox(declared_params(config))


@functools.partial(jax.jit, static_argnames="config")
def init_params(config: Mask2FormerConfig, key: Key[Array, ""]) -> Params:
    """Freshly initialised float32 parameters, of which `key` draws those that are random."""
    return initialise(declared_params(config), key)
