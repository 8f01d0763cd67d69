"""The mode of tuning that a run chooses for itself (`tune.mode auto`): by how many photos there are to learn from."""

import dataclasses
from pathlib import Path

from samjax.readers.sources import open_sources

from . import run_folder
from .config import TrainConfig

AUTO = "auto"
MANY = 200  # photos


def settled(config: TrainConfig, out: Path) -> tuple[TrainConfig, str | None]:
    """A recipe whose mode is decided, and a line about the decision; None if there was none to make.

    A run that has begun keeps its mode; its other options are compared by `run_folder.check_same_run`. Raises
    ValueError and OSError where the training data cannot be opened.
    """
    if config.tune.mode.strip() != AUTO:
        return config, None
    if run_folder.is_started(out):
        mode, why = run_folder.read_config(out)[0].tune.mode, "as this run began"
    else:
        mode, why = _choice(_photos(config))
    tune = dataclasses.replace(config.tune, mode=mode)
    return dataclasses.replace(config, tune=tune), f"tune.mode auto: {mode}, {why}"


def _choice(photos: int) -> tuple[str, str]:
    """A mode, and the reason for it."""
    if photos < MANY:
        return "decoder", f"because {photos:,} photos are too few to change the image encoder without forgetting"
    return "lora+decoder", f"because {photos:,} photos are enough to change the image encoder too, a little (LoRA)"


def _photos(config: TrainConfig) -> int:
    try:
        return len(open_sources(config.data.train)) if config.data.train else 0
    except ValueError as error:
        raise ValueError(f"data.train: {error}") from error
