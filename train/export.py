"""A run's weights as checkpoints that other programs read, native, Meta's and Hugging Face's: `samjax export`."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Literal

import ml_dtypes  # noqa: F401  (NumPy knows bfloat16 by it)
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import checkpoint, convert
from samjax.checkpoint import CheckpointError, Description
from samjax.convert import CheckpointFormat

from . import run_folder
from .checkpoints import Checkpoints
from .metrics import JSONL, RETAINED, validations
from .state import network_params

Dtype = Literal["float32", "bfloat16", "float16"]
PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A written checkpoint, and the weights of the run that it holds."""

    description: Description
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
        overwrite: replace what stands at `destination` if it is a file or a checkpoint.

    Raises:
        ValueError: `run` is no run's folder, or has no such checkpoint.
        FileExistsError: `destination` exists.
    """
    run = Path(run)
    run = run.parent if run.name == run_folder.CONFIG else run
    config, sam = run_folder.read_config(run)[0], run_folder.network(run)
    with Checkpoints(run / run_folder.CHECKPOINTS, read_only=True) as checkpoints:
        if step is not None:
            why = "asked for"
        elif (step := checkpoints.best()) is not None:
            why = "the best val/iou of the checkpoints that are kept"
        else:
            step, why = checkpoints.latest(), "the latest"
        if step is None:
            raise CheckpointError(f"there is no complete checkpoint in {run}")
        params = network_params(config, sam, checkpoints.weights(step, raw=raw))
        decay = None if raw else config.optim.ema
        named = "raw" if decay is None else "averaged"
        provenance = {"run": run.absolute().name, "step": step, "weights": named}
        if dtype is not None:
            flat = flatten_dict(params, sep="/")
            cast = {name: checkpoint.cast(name, np.asarray(array), np.dtype(dtype)) for name, array in flat.items()}
            params = unflatten_dict(cast, sep="/")
        if metrics := checkpoints.metrics(step):
            provenance["metrics"] = metrics
    carried = {"provenance": provenance, "thresholds": run_folder.thresholds(run)}
    convert.write(destination, sam, params, to=to, overwrite=overwrite, **carried)
    retained = validations(run / JSONL, RETAINED).get(0, {})
    at_start = validations(run / JSONL).get(0, {}) | {f"{RETAINED}/{name}": value for name, value in retained.items()}
    unmeasured = raw and config.optim.ema is not None
    return Exported(convert.describe(destination), step, why, named, decay, metrics, unmeasured, at_start)


if __name__ == "__main__":
    sys.exit("this command is called `samjax export RUN FILE` now")
