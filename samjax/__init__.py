"""Segment Anything as pure functions in JAX/Flax."""

from samjax.amg import SamAutomaticMaskGenerator
from samjax.checkpoint import CheckpointError
from samjax.config import VARIANTS, Execution, SamConfig
from samjax.hub import load
from samjax.predictor import SamPredictor, sam_model_registry
from samjax.sam import Sam, decode, encode
from samjax.transforms import mask_prompt, read_image
from samjax.types import Embedding, Prediction, Prompts

__all__ = [
    "VARIANTS",
    "CheckpointError",
    "Embedding",
    "Execution",
    "Prediction",
    "Prompts",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamConfig",
    "SamPredictor",
    "decode",
    "encode",
    "load",
    "mask_prompt",
    "read_image",
    "sam_model_registry",
]
