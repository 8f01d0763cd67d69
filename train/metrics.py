"""Writers of a run's numbers and pictures: a JSONL file, TensorBoard, Weights & Biases.

`metrics.jsonl` has one line for each logged step: {"step": 10, "time": 1700000000.0, "loss": 1.5}, where `time` is in
seconds since 1970. It is the record of a run; the others show it.
"""

import importlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from samjax.atomic import replacing

PathLike = str | os.PathLike[str]

JSONL = "metrics.jsonl"
RETAINED = "retain"  # begins the names of scores on old data, as "val" does on new


class MetricWriters:
    """The places that a run's numbers go to; on processes other than the first, none. A context manager.

    Args:
        folder: of the run; gets `metrics.jsonl`, `tensorboard/` and `pictures/`.
        resumed_at: the step that the run resumes from; what was logged later is removed, so that no step stands in the
            curve twice. None: a new run, which replaces all that was logged.
        tensorboard: also write TensorBoard's event files.
        wandb: the project of Weights & Biases to log to as well.
        config: the run's configuration as plain values, for Weights & Biases.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        resumed_at: int | None = None,
        tensorboard: bool = True,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._file = self._board = self._wandb = None
        self._folder = Path(folder)
        if jax.process_index() != 0:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / JSONL
        keep_until(path, -1 if resumed_at is None else resumed_at)
        if wandb is not None:
            self._wandb = _start_wandb(self._folder, wandb, config, resumed=resumed_at is not None)
        if tensorboard:
            from tensorboardX import SummaryWriter

            # TensorBoard itself drops what an earlier file has from this step on.
            purge = {} if resumed_at is None else {"purge_step": resumed_at + 1}
            self._board = SummaryWriter(str(self._folder / "tensorboard"), **purge)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricWriters":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers of a step, by names such as "loss/focal"; scalar arrays are numbers too. NaN and inf are kept.

        Raises ValueError for a value that is not one number.
        """
        if self._file is None:
            return
        numbers = {name: _plain(value, name) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **numbers}) + "\n")
        self._file.flush()  # a run that is killed keeps its curve
        if self._board is not None:
            for name, number in numbers.items():
                self._board.add_scalar(name, number, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def picture(self, step: int, name: str, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes a picture: `pictures/NAME_STEP.png`, and the same in TensorBoard and Weights & Biases."""
        if self._file is None:
            return
        from PIL import Image

        file = self._folder / "pictures" / f"{name.replace('/', '_')}_{step:07d}.png"
        with replacing(file, overwrite=True) as temporary:
            Image.fromarray(rgb).save(temporary)
        if self._board is not None:
            self._board.add_image(name, rgb, step, dataformats="HWC")
            self._board.flush()
        if self._wandb is not None:
            self._wandb.log({name: importlib.import_module("wandb").Image(rgb)}, step=step)

    def close(self) -> None:
        """Closes all files; everything that was written is on the disk afterwards."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._file = self._board = self._wandb = None


def read(path: PathLike) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in order. A last line that was cut off when its writer was killed is left out.

    Raises ValueError if another line is damaged.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
            entries[-1]["step"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: line {number} is no JSON object with a step; mend or remove it") from None
    return entries


def validations(path: PathLike, name: str = "val") -> dict[int, dict[str, float]]:
    """The validations in a `metrics.jsonl`: by step, in order, the scores without "val/". {} if there is no file.

    `name` is what the scores' names begin with: "val" or `RETAINED`.
    """
    found: dict[int, dict[str, float]] = {}
    for entry in read(path) if Path(path).exists() else []:
        scores = {key.removeprefix(f"{name}/"): value for key, value in entry.items() if key.startswith(f"{name}/")}
        if scores:
            found[entry["step"]] = scores
    return found


def keep_until(path: Path, step: int) -> None:
    """Removes the lines of later steps, and a line that was cut off, from a `metrics.jsonl`."""
    if not path.exists():
        return
    kept = [entry for entry in read(path) if entry["step"] <= step]
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


def _plain(value: Any, name: str) -> int | float:
    array = np.asarray(value)
    if array.size != 1 or (array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16"):
        raise ValueError(f"the metric {name!r} must be one number, got shape {array.shape} of {array.dtype}")
    number = array.reshape(()).astype(np.float64).item() if array.dtype.kind not in "biu" else array.item()
    return int(number) if isinstance(number, bool) else number


def _start_wandb(folder: Path, project: str, config: Mapping[str, Any] | None, *, resumed: bool) -> Any:
    """A run whose identity is kept in the folder, so that a resumed run continues the same curve."""
    try:
        module = importlib.import_module("wandb")
    except ImportError:
        raise ValueError(
            "logging to Weights & Biases needs its package: pip install wandb; or leave run.wandb out"
        ) from None
    identity = folder / "wandb_id"
    name = identity.read_text().strip() if resumed and identity.exists() else module.util.generate_id()
    identity.write_text(name + "\n")
    return module.init(project=project, id=name, resume="allow", dir=str(folder), config=dict(config or {}))
