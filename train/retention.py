"""Forgetting by tuning: old data measured beside the new, and a warning of settings that break clicks or boxes."""

import warnings
from pathlib import Path

import jax
from jax.sharding import Mesh

from samjax.types import Params

from .cached.batches import FeatureCache
from .config import TrainConfig
from .data.pipeline import Pipeline
from .metrics import JSONL, RETAINED, MetricWriters, validations
from .progress import Progress
from .tasks import Task
from .validator import Validator


class Validators:
    """The validation of a run, on new data (`data.val`), old data (`eval.retain`) or both; used like a `Validator`."""

    def __init__(self, new: Validator | None, old: Validator | None, progress: Progress) -> None:
        self._new, self._old, self._progress = new, old, progress

    def open(self) -> None:
        """Reads all of the data once; raises as `Validator.open`."""
        for validator in (self._new, self._old):
            if validator is not None:
                validator.open()

    def take_features(self, cache: FeatureCache) -> None:
        """As `Validator.take_features`, for both."""
        for validator in (self._new, self._old):
            if validator is not None:
                validator.take_features(cache)

    def measure(self, step: int, params: Params, writers: MetricWriters) -> dict[str, float]:
        """The scores after `step` updates, written and shown: those on new data as they are called, so that "iou"
        tells checkpoints apart, and those on old data as "retain/iou" and so on."""
        measured: dict[str, float] = {}
        with self._progress.aside("validation"):  # both together, after each has told its own time
            if self._new is not None:
                measured |= self._new.measure(step, params, writers)
            if self._old is not None:
                self._old.is_compiled |= self._new is not None  # the same programs
                retained = self._old.measure(step, params, writers)
                measured |= {f"{RETAINED}/{name}": value for name, value in retained.items()}
        return measured

    def draw(self, step: int, params: Params, writers: MetricWriters) -> None:
        """A picture of what the parameters predict for the first photos, new ones where there are any."""
        shown = self._new or self._old
        if shown is not None:
            shown.draw(step, params, writers)


def make_validators(
    config: TrainConfig,
    task: Task,
    mesh: Mesh,
    validation: Pipeline | None,
    retained: Pipeline | None,
    progress: Progress,
    out: Path,
) -> Validators | None:
    """The validation of the run in `out`; None if it has no data for it."""

    def validator(data: Pipeline | None, name: str, option: str) -> Validator | None:
        if data is None:
            return None
        at_start = validations(out / JSONL, name).get(0, {}).get("iou")
        return Validator(config, task, mesh, data, progress, at_start, name=name, option=option)

    new, old = validator(validation, "val", "data.val"), validator(retained, RETAINED, "eval.retain")
    return None if new is old is None else Validators(new, old, progress)


def unseen_prompts(config: TrainConfig) -> str | None:
    """The kind of prompt that a recipe never shows to the model, and what follows; None if it shows both kinds."""
    user = config.interaction
    if user.box_probability == 0:
        return "no mask is prompted by its box (interaction.box_probability is 0), so boxes are likely to get worse"
    if user.box_probability < 1 or user.recorded_share > 0:
        return None
    if user.corrections == 0:
        return (
            "masks are prompted by their boxes alone (interaction.box_probability is 1 and interaction.corrections 0), "
            "so clicks are likely to get worse"
        )
    return (
        "every mask is prompted by its box first (interaction.box_probability is 1), so clicks without a box are "
        "likely to get worse"
    )


def warn_of_unseen_prompts(config: TrainConfig) -> None:
    """Warns, in the first process, before a model is tuned with one kind of prompt alone."""
    unseen = unseen_prompts(config)
    if unseen is None or jax.process_index() != 0:
        return
    if config.eval.retain:
        measured = "retain/iou_1, retain/iou_5 and retain/iou_box will tell"
    else:
        measured = "--eval.retain FORMAT=PATH measures both on data that the model could segment before"
    warnings.warn(f"{unseen}; {measured}. --interaction.box-probability 0.5 shows clicks and boxes alike", stacklevel=2)
