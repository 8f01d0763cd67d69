"""A run's weights as checkpoints that other programs read, native, Meta's and Hugging Face's, or what it has tuned
alone: `samjax export`."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Literal

import ml_dtypes  # noqa: F401  (NumPy knows bfloat16 by it)
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import checkpoint, convert
from samjax.checkpoint import CheckpointError, Description, lazy
from samjax.config import SamConfig
from samjax.convert import CheckpointFormat
from samjax.model import abstract_params
from samjax.tuned import Base, Tuned, changed_kernel
from samjax.types import Params

from . import run_folder
from .checkpoints import Checkpoints
from .config import TrainConfig
from .metrics import JSONL, RETAINED, validations
from .state import network_params
from .trainable import chosen_modes, factor_scale, trained_shapes

Dtype = Literal["float32", "bfloat16", "float16"]
PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A written checkpoint, and the weights of the run that it holds."""

    description: Description | Tuned
    step: int
    why: str  # this step was chosen
    weights: str  # "averaged" or "raw"
    decay: float | None  # of the average, where that was written
    metrics: dict[str, float]  # of the step; {} where it was not validated
    unmeasured: bool  # whether `metrics` are of the average, and not of the raw parameters that were written
    at_start: dict[str, float]  # the same before the first step


def export(
    run: PathLike,
    destination: PathLike,
    *,
    to: CheckpointFormat | None = None,
    step: int | None = None,
    raw: bool = False,
    dtype: Dtype | None = None,
    tuned: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Writes the weights of a run, which may still be running, and says what was written.

    Args:
        run: the run's folder, or its `config.json`.
        destination: the file or folder to make.
        to: "native", "meta" or "huggingface"; None follows the ending of `destination` (see `samjax.convert.write`).
        step: a checkpoint's; None: the best one, or the latest where no checkpoint was validated.
        raw: the parameters themselves where the run also has their average, which is otherwise taken.
        dtype: what parameters are rounded to, but the matrix of the Fourier features; None keeps them as trained.
        tuned: only what was tuned, in float32, as a file that `samjax.load(BASE, tuned=FILE)` applies to the checkpoint
            that the run started from.
        overwrite: replace what stands at `destination` if it is a file or a checkpoint.

    Raises:
        ValueError: `run` is no run's folder, or has no such checkpoint; `tuned` with `to` or `dtype`, or of a run that
            started from no checkpoint.
        FileExistsError: `destination` exists.
    """
    run = Path(run)
    run = run.parent if run.name == run_folder.CONFIG else run
    config, sam = run_folder.read_config(run)[0], run_folder.network(run)
    if tuned and (to is not None or dtype is not None):
        raise ValueError("what was tuned has one format and is float32: --tuned goes with neither --to nor --dtype")
    base = run_folder.base(run)
    if tuned and base is None:
        raise ValueError(f"{run} does not say which checkpoint it started from, so there is nothing to apply it to")
    with Checkpoints(run / run_folder.CHECKPOINTS, read_only=True) as checkpoints:
        if step is not None:
            why = "asked for"
        elif (step := checkpoints.best()) is not None:
            why = "the best val/iou of the checkpoints that are kept"
        else:
            step, why = checkpoints.latest(), "the latest"
        if step is None:
            raise CheckpointError(f"there is no complete checkpoint in {run}")
        kept = checkpoints.weights(step, raw=raw)
        decay = None if raw else config.optim.ema
        named = "raw" if decay is None else "averaged"
        provenance = {"run": run.absolute().name, "step": step, "weights": named}
        params = {} if tuned else network_params(config, sam, kept)
        if dtype is not None:
            flat = flatten_dict(params, sep="/")
            cast = {name: checkpoint.cast(name, np.asarray(array), np.dtype(dtype)) for name, array in flat.items()}
            params = unflatten_dict(cast, sep="/")
        if metrics := checkpoints.metrics(step):
            provenance["metrics"] = metrics
    carried = {"provenance": provenance, "thresholds": run_folder.thresholds(run)}
    if base is not None and tuned:
        described = _tuned(config, sam, base, kept, carried)
        convert.write_tuned(Path(destination), described, overwrite=overwrite)
    else:
        convert.write(destination, sam, params, to=to, overwrite=overwrite, **carried)
        described = convert.describe(destination)
    retained = validations(run / JSONL, RETAINED).get(0, {})
    at_start = validations(run / JSONL).get(0, {}) | {f"{RETAINED}/{name}": value for name, value in retained.items()}
    unmeasured = raw and config.optim.ema is not None
    return Exported(described, step, why, named, decay, metrics, unmeasured, at_start)


def _tuned(config: TrainConfig, sam: SamConfig, base: Base, kept: Params, carried: dict[str, Any]) -> Tuned:
    """The tuned part of what a checkpoint keeps: the trained parameters of SAM, all that changes a kernel, and what the
    base lacks."""
    had = _shapes(base.config.with_image_size(sam.image_size))
    new = {name for name, shape in _shapes(sam).items() if had.get(name) != shape}
    trained = flatten_dict(trained_shapes(config, sam), sep="/").keys() | new
    leaves = {}
    for name, leaf in flatten_dict(kept, sep="/").items():
        if name.partition("/")[0] in abstract_params(sam) and (name in trained or changed_kernel(name)):
            leaves[name] = lazy(np.asarray(leaf, np.float32))
    tune = {"mode": config.tune.mode}
    for mode in chosen_modes(config.tune):
        tune |= {option: getattr(config.tune, option) for option in mode.options}
    return Tuned(base, sam, tune, factor_scale(config.tune), leaves, **carried)


def _shapes(sam: SamConfig) -> dict[str, tuple[int, ...]]:
    leaves: dict[str, Any] = flatten_dict(abstract_params(sam), sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


if __name__ == "__main__":
    sys.exit("this command is called `samjax export RUN FILE` now")
