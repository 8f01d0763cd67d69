"""Segment Anything as pure functions in JAX/Flax."""

from pathlib import Path

from samjax.amg import SamAutomaticMaskGenerator
from samjax.checkpoint import CheckpointError
from samjax.config import VARIANTS, Execution, SamConfig
from samjax.hub import load
from samjax.pictures import read_image
from samjax.predictor import SamPredictor, sam_model_registry
from samjax.sam import Sam, decode, encode
from samjax.transforms import mask_prompt
from samjax.types import Embedding, Prediction, Prompts

# An interpreter that is started in a source tree finds this folder before an installed samjax. There, convert/ and
# train/ are its neighbours.
if not (Path(__file__).parent / "convert").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

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
