"""A run's weights as checkpoints that other programs read: native, Meta's and Hugging Face's.

python -m samjax.train.export RUN DST [--to meta] [--step 1000] [--raw] [--dtype float16] [--overwrite]
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import ml_dtypes  # noqa: F401  (NumPy knows bfloat16 by it)
import numpy as np
import tyro
from flax.traverse_util import flatten_dict, unflatten_dict
from samjax.convert import Target
from tyro.conf import Positional, arg

from samjax import checkpoint, convert
from samjax.checkpoint import Description

from . import run_folder
from .checkpoints import Checkpoints

Dtype = Literal["float32", "bfloat16", "float16"]
PathLike = str | os.PathLike[str]


def export(
    run: PathLike,
    destination: PathLike,
    *,
    to: Target | None = None,
    step: int | None = None,
    raw: bool = False,
    dtype: Dtype | None = None,
    overwrite: bool = False,
) -> Description:
    """Writes the weights of a run, which may still be going on, and says what was written.

    Args:
        run: the run's folder.
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
    config, sam = run_folder.read_config(run)
    if sam is None:
        raise ValueError(f"{run / run_folder.CONFIG} is a recipe, not the configuration of a run: it has no 'sam'")
    with Checkpoints(run / run_folder.CHECKPOINTS, read_only=True) as checkpoints:
        step = step if step is not None else checkpoints.best()
        step = step if step is not None else checkpoints.latest()
        params = checkpoints.weights(step, raw=raw)
        averaged = config.optim.ema is not None and not raw
        provenance = {"run": run.absolute().name, "step": step, "weights": "averaged" if averaged else "raw"}
        if dtype is not None:
            flat = flatten_dict(params, sep="/")
            cast = {name: checkpoint.cast(name, np.asarray(array), np.dtype(dtype)) for name, array in flat.items()}
            params = unflatten_dict(cast, sep="/")
        if metrics := checkpoints.metrics(step):
            provenance["metrics"] = metrics
    convert.write(destination, sam, params, to=to, provenance=provenance, overwrite=overwrite)
    return convert.describe(destination)


def command(
    run: Annotated[Positional[Path], arg(metavar="RUN", help="The folder of a training run.")],
    destination: Annotated[Positional[Path], arg(metavar="DST", help="The file or folder to write.")],
    to: Annotated[
        Target | None,
        arg(help="Format of DST; by default its ending decides: .pth or .safetensors is meta, no ending native."),
    ] = None,
    step: Annotated[int | None, arg(help="Which checkpoint; by default the best one.")] = None,
    raw: Annotated[bool, arg(help="The parameters themselves, not their average.")] = False,
    dtype: Annotated[Dtype | None, arg(help="Round parameters to this; by default they stay as trained.")] = None,
    overwrite: Annotated[bool, arg(help="Replace DST if it is a file or a checkpoint folder.")] = False,
) -> None:
    """Write a training run's weights as a native, Meta or Hugging Face checkpoint."""
    described = export(run, destination, to=to, step=step, raw=raw, dtype=dtype, overwrite=overwrite)
    print(f"{destination}: {described.format} {described.variant}, {described.parameters:,} parameters")


def main(args: Sequence[str] | None = None) -> int:
    """The command line; errors of use are one line on standard error and exit code 2."""
    try:
        tyro.cli(command, prog="python -m samjax.train.export", args=args)
    except (ValueError, OSError) as error:
        print(f"samjax: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
