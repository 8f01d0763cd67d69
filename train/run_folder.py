"""A run's folder, and the configuration that stands in it.

RUN/config.json       the recipe as it was run; under "sam" the network it trains, under "extended" when it was given
                      more steps (`samjax.train.extension`), under "thresholds" those of mask generation that came with
                      the weights it started from, if they are not Meta's; under "base" name, checksum and network of
                      the checkpoint that it started from
RUN/checkpoints/      see `samjax.train.checkpoints`
RUN/metrics.jsonl     the curve; RUN/tensorboard/ and RUN/pictures/ show it
RUN/bad_records.jsonl what of the training data could not be used; bad_validation_records.jsonl,
                      bad_mixed_records.jsonl and bad_retained_records.jsonl of the others
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from samjax.atomic import replacing
from samjax.checkpoint import CheckpointError, from_json, thresholds_from_json
from samjax.config import MaskThresholds, SamConfig, written_fields
from samjax.lock import FolderInUse, working_in
from samjax.tuned import Base

from .config import TrainConfig

CONFIG, CHECKPOINTS = "config.json", "checkpoints"
BAD_TRAINING, BAD_VALIDATION = "bad_records.jsonl", "bad_validation_records.jsonl"
BAD_MIXED, BAD_RETAINED = "bad_mixed_records.jsonl", "bad_retained_records.jsonl"
# What may be changed when a run is resumed: it does not change the curve.
_FREE = {
    "data": {"train", "val", "mix", "threads", "workers", "prefetch", "max_bad_share"},  # data may move
    "eval": {"retain", "retain_images"},
    "cache": {"features", "budget_gb", "folder"},  # but see `check_same_run`
    "run": {
        *("remat", "images_together", "masks_together", "cpu_devices", "data_axis", "fsdp_axis", "tensor_axis"),
        *("log_every", "validate_every", "validate_minutes", "validation_images", "picture_every", "checkpoint_every"),
        *("keep_last", "keep_best", "tensorboard", "wandb"),
    },
}


@dataclasses.dataclass(frozen=True)
class Extension:
    """More steps that a run was given when it had finished."""

    at: int  # the step it had finished at
    steps: int  # its `run.steps` from then on
    steps_before: int
    time: str  # when, as ISO 8601 in UTC


def to_json(
    config: TrainConfig,
    sam: SamConfig | None = None,
    extensions: Sequence[Extension] = (),
    thresholds: MaskThresholds | None = None,
    base: Base | None = None,
) -> str:
    """The text of a `config.json`: the recipe and, in a run, what this module's docstring lists."""
    fields = dataclasses.asdict(config)
    if sam is not None:
        fields["sam"] = written_fields(sam)
    if extensions:
        fields["extended"] = [dataclasses.asdict(extension) for extension in extensions]
    if thresholds is not None and thresholds != MaskThresholds():
        fields["thresholds"] = dataclasses.asdict(thresholds)
    if base is not None:
        fields["base"] = written_fields(base)
    return json.dumps(fields, indent=1) + "\n"


def write_config(
    folder: Path,
    config: TrainConfig,
    sam: SamConfig,
    extensions: Sequence[Extension] = (),
    thresholds: MaskThresholds | None = None,
    base: Base | None = None,
) -> None:
    """Writes a run's `config.json`, whole or not at all; replaces the one that is there."""
    with replacing(folder / CONFIG, overwrite=True) as temporary:
        temporary.write_text(to_json(config, sam, extensions, thresholds, base), encoding="utf-8")


def read_config(path: str | os.PathLike[str]) -> tuple[TrainConfig, SamConfig | None]:
    """A run's `config.json`, given itself or the run's folder. Raises ValueError if it is none."""
    return _read(path)[:2]


def network(path: str | os.PathLike[str]) -> SamConfig:
    """The network that a run trains; reads and raises as `read_config`, and raises ValueError for a recipe."""
    sam = read_config(path)[1]
    if sam is None:
        raise ValueError(f"{Path(path) / CONFIG} is a recipe, not the configuration of a run: it has no 'sam'")
    return sam


def extensions(path: str | os.PathLike[str]) -> list[Extension]:
    """The times that a run was given more steps, in order; reads and raises as `read_config`."""
    return _read(path)[2]


def thresholds(path: str | os.PathLike[str]) -> MaskThresholds:
    """The thresholds of mask generation that came with a run's first weights; reads and raises as `read_config`."""
    return _read(path)[3]


def base(path: str | os.PathLike[str]) -> Base | None:
    """The checkpoint that a run started from; reads and raises as `read_config`. None: it started from none, or before
    runs kept it."""
    return _read(path)[4]


def _read(
    path: str | os.PathLike[str],
) -> tuple[TrainConfig, SamConfig | None, list[Extension], MaskThresholds, Base | None]:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no folder {path}; name the folder of a training run")
    path = path / CONFIG if path.is_dir() else path
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        sam, extended = fields.pop("sam", None), fields.pop("extended", [])
        known = [from_json(Extension, extension) for extension in extended]
        suited = thresholds_from_json(fields.pop("thresholds", {}), path)
        base = fields.pop("base", None)
        base = None if base is None else from_json(Base, base)
        return from_json(TrainConfig, fields), None if sam is None else from_json(SamConfig, sam), known, suited, base
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is no folder of a training run: it holds no {path.name}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no configuration of a training run: {error}") from None


def is_started(folder: Path) -> bool:
    """True if there is something to resume: a configuration and a complete checkpoint (unfinished ones have other
    names). A run that failed before starts anew, with whatever configuration."""
    return (folder / CONFIG).exists() and steps_done(folder) > 0


def steps_done(folder: Path) -> int:
    """The step of the newest complete checkpoint; 0 if there is none."""
    return max((int(step.name) for step in (folder / CHECKPOINTS).glob("*") if step.name.isdigit()), default=0)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other jobs out of a run's folder (`samjax.lock`); all processes of this run raise where one is there."""
    with contextlib.ExitStack() as stack:
        refused: Exception | None = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(working_in(folder))
            except (FolderInUse, OSError) as error:
                refused = error
        if jax.process_count() > 1 and not multihost_utils.broadcast_one_to_all(np.int32(refused is None)):
            refused = refused or FolderInUse(f"process 0 cannot work in {folder}; its message says why")
        if refused is not None:
            raise refused
        yield


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Raises ValueError, naming the fields, where a run in `folder` was started with another configuration. The number
    of steps is judged by `samjax.train.extension`, except in a timed run, which cannot be given more."""
    started, _ = read_config(folder)
    rounds = started.cache.dtype not in (None, started.run.compute_dtype)  # kept features are not those computed anew
    differing = [
        f"{part}.{name}: {was!r}, now {now!r}"
        for part, fields in dataclasses.asdict(started).items()
        for name, was in fields.items()
        if (now := dataclasses.asdict(config)[part][name]) != was
        and (name not in _FREE.get(part, ()) or (rounds and part == "cache" and name != "folder"))
        and ((part, name) != ("run", "steps") or config.run.minutes is not None)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run that was started with another configuration:\n  "
            + "\n  ".join(differing)
            + f"\nContinue it as it was (samjax train {folder / CONFIG} --out {folder}), or give the new run another "
            f"folder; --model.init EXPORT starts it from this one's weights (samjax export {folder} EXPORT)"
        )
