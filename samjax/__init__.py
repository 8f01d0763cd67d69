"""Segment Anything as pure functions in JAX/Flax."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samjax import renamed

if TYPE_CHECKING:
    from samjax.checkpoint import CheckpointError as CheckpointError
    from samjax.config import VARIANTS as VARIANTS
    from samjax.config import SamConfig as SamConfig
    from samjax.drop_in.generator import SamAutomaticMaskGenerator as SamAutomaticMaskGenerator
    from samjax.drop_in.predictor import SamPredictor as SamPredictor
    from samjax.drop_in.predictor import sam_model_registry as sam_model_registry
    from samjax.execution import Execution as Execution
    from samjax.hub import load as load
    from samjax.model import decode as decode
    from samjax.model import encode as encode
    from samjax.pictures import read_image as read_image
    from samjax.sam import Sam as Sam
    from samjax.transforms import mask_prompt as mask_prompt
    from samjax.types import Embedding as Embedding
    from samjax.types import Prediction as Prediction
    from samjax.types import Prompts as Prompts

# An interpreter that is started in a source tree finds this folder before an installed samjax. There, convert/ and
# train/ are its neighbours.
if not (Path(__file__).parent / "convert").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

renamed.install()

# Resolved when first asked for: who reads photos or writes masks does not load the network.
_MODULES = {
    "VARIANTS": "samjax.config",
    "CheckpointError": "samjax.checkpoint",
    "Embedding": "samjax.types",
    "Execution": "samjax.execution",
    "Prediction": "samjax.types",
    "Prompts": "samjax.types",
    "Sam": "samjax.sam",
    "SamAutomaticMaskGenerator": "samjax.drop_in.generator",
    "SamConfig": "samjax.config",
    "SamPredictor": "samjax.drop_in.predictor",
    "decode": "samjax.model",
    "encode": "samjax.model",
    "load": "samjax.hub",
    "mask_prompt": "samjax.transforms",
    "read_image": "samjax.pictures",
    "sam_model_registry": "samjax.drop_in.predictor",
}
__all__ = [  # written out for static tools
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


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    if name.startswith("__") or "." in name:
        raise AttributeError(f"module 'samjax' has no attribute {name!r}")
    try:  # samjax.hub, samjax.transforms and others, which `import samjax` used to load
        return importlib.import_module(f"samjax.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"samjax.{name}":
            raise
        raise AttributeError(f"module 'samjax' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
