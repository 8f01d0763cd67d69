"""Segment Anything as pure functions in JAX/Flax."""

from samjax.config import VARIANTS, Execution, SamConfig
from samjax.sam import Sam, decode, encode
from samjax.transforms import mask_prompt, read_image
from samjax.types import Embedding, Prediction, Prompts

__all__ = [
    "VARIANTS",
    "Embedding",
    "Execution",
    "Prediction",
    "Prompts",
    "Sam",
    "SamConfig",
    "decode",
    "encode",
    "mask_prompt",
    "read_image",
]
