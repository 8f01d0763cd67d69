"""The thresholds of mask generation that suit a model, in the formats that have a place for them.

A native checkpoint has them in its manifest (`samjax.checkpoint`), a `.safetensors` file, alone or in a Hugging Face
folder, in its header. Meta's `.pth` has none: `load_state_dict` refuses names that it does not know.
"""

import dataclasses
import json
from pathlib import Path

from samjax import checkpoint
from samjax.checkpoint import CheckpointError
from samjax.config import MaskThresholds

from .safetensors_file import is_safetensors, read_metadata

KEY = "samjax_thresholds"  # in the header of a .safetensors file


def read_thresholds(path: Path) -> MaskThresholds:
    """Reads the thresholds that a checkpoint of any format carries, Meta's if it has none; no tensor is read.

    Raises:
        CheckpointError: the checkpoint is damaged, or they are not numbers.
    """
    if checkpoint.is_native(path):
        return checkpoint.read_thresholds(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file() or not is_safetensors(file):
        return MaskThresholds()
    text = read_metadata(file).get(KEY, "{}")
    try:
        fields = json.loads(text)
    except ValueError:
        raise CheckpointError(f"{file}: {KEY} in its header is no JSON: {text[:100]!r}") from None
    return checkpoint.thresholds_from_json(fields, file)


def metadata(thresholds: MaskThresholds | None) -> dict[str, str]:
    """Returns the header of a .safetensors file: PyTorch's mark, and the thresholds if they are not Meta's."""
    if thresholds is None or thresholds == MaskThresholds():
        return {"format": "pt"}
    return {"format": "pt", KEY: json.dumps(dataclasses.asdict(thresholds))}
