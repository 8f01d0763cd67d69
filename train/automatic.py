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

    A run that has begun keeps its mode. Raises ValueError and OSError where the training data cannot be opened.
    """
    if config.tune.mode != AUTO:
        return config, None
    if run_folder.is_started(out):
        tune = run_folder.read_config(out)[0].tune
        return dataclasses.replace(config, tune=tune), f"tune.mode auto: {tune.mode}, as this run began"
    mode, why = _choice(_photos(config))
    tune = dataclasses.replace(config.tune, mode=mode)
    return dataclasses.replace(config, tune=tune), f"tune.mode auto: {mode}, because {why}"


def _choice(photos: int) -> tuple[str, str]:
    """A mode, and the reason for it."""
    if photos < MANY:
        return "decoder", (
            f"{photos:,} photos are too few to change the image encoder without forgetting; features of photos are "
            "computed once"
        )
    return "lora+decoder", f"{photos:,} photos are enough to change the image encoder too, a little (LoRA)"


def _photos(config: TrainConfig) -> int:
    try:
        return len(open_sources(config.data.train)) if config.data.train else 0
    except ValueError as error:
        raise ValueError(f"data.train: {error}") from error
