"""Checkpoints of a run: written in the background, complete or not there at all, restored onto any mesh.

    FOLDER/<step>/params/     the parameters, trained and frozen
    FOLDER/<step>/ema/        the average of the trained ones, where the run has one
    FOLDER/<step>/optimiser/  step, random key and the optimiser's state
    FOLDER/<step>/data/       where the data iterator is, as JSON
    FOLDER/<step>/metrics/    what was measured at this step, as JSON

A checkpoint is written under a temporary name and renamed when all of it is there; orbax does that and removes
checkpoints that are no longer wanted. Within an item each array stands under its own name ("mask_decoder/iou_token/
embedding"), so a change of structure is reported by name.
"""

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import unflatten_dict
from orbax.checkpoint import checkpoint_managers

from samjax.checkpoint import CheckpointError
from samjax.errors import first_line
from samjax.mismatch import explain_mismatch

from .state import TrainState

PathLike = str | os.PathLike[str]

_ARRAYS = ("params", "ema", "optimiser")


class Checkpoints:
    """The checkpoints of one run. A context manager; leaving it waits for the last save.

    Args:
        folder: local, or gs:// and what else etils' epath knows; made if it is not there.
        keep_last: how many of the newest checkpoints are kept.
        keep_best: whether the best one is kept beside them: the one whose metrics have the highest `best_by`.
        best_by: the metric's name.
        read_only: nothing is written or removed, so that a running run can be looked at.

    A save that fails in the background raises OSError at the next `check`, `save`, `wait` or `close`.
    """

    def __init__(
        self,
        folder: PathLike,
        keep_last: int = 2,
        keep_best: bool = True,
        *,
        best_by: str = "iou",
        read_only: bool = False,
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"at least one checkpoint must be kept to resume from, got keep_last={keep_last}")
        self.folder = _path(folder)
        if not read_only:
            _make_writable(self.folder)

        def score(metrics: dict[str, float]) -> float:
            value = metrics.get(best_by, math.nan)
            return -math.inf if math.isnan(value) else value  # without a metric: the worst

        self._score = score

        kept: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            kept.append(checkpoint_managers.BestN(get_metric_fn=score, n=1))
        options = ocp.CheckpointManagerOptions(
            best_fn=score,
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=not read_only,  # what a killed process has left
            create=not read_only,
            read_only=read_only,
        )
        handlers = {
            # Weights are noise to a compressor: it costs 4x the time and saves 7 %.
            **{name: ocp.PyTreeCheckpointHandler(use_compression=False) for name in _ARRAYS},
            "data": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        else:  # a failed save must not hide the error that is on its way
            with contextlib.suppress(OSError):
                self.close()

    def save(self, step: int, state: TrainState, data_state: Any, metrics: dict[str, float] | None = None) -> bool:
        """Copies the state to the host and writes it in the background; the state may be donated afterwards.

        Waits for the save before, if that is still being written. All processes call it; `data_state`, plain JSON
        values, is the first process's. Returns False, and does nothing, where there is a checkpoint of this step.
        """
        self.wait()
        if step in self.steps():
            return False
        items = {name: ocp.args.PyTreeSave(item) for name, item in _items(state).items()}
        args = ocp.args.Composite(**items, data=ocp.args.JsonSave({"state": data_state}))
        with self._explained():
            self._manager.save(step, args=args, metrics={name: float(value) for name, value in (metrics or {}).items()})
        return True

    def restore(self, abstract_state: TrainState, step: int | None = None) -> tuple[TrainState, Any]:
        """The state of a step, by default the latest, and the data iterator's.

        Args:
            abstract_state: `jax.ShapeDtypeStruct`s with shardings; every array is read straight onto those shards,
                whatever mesh it was saved from.
            step: one of `steps()`.

        Raises:
            CheckpointError: there is no such checkpoint, or what it holds is not what `abstract_state` wants.
        """
        self.wait()
        step = self._known(step)
        wanted = _items(abstract_state)
        shapes = {f"{item}/{name}": leaf.shape for item, leaves in wanted.items() for name, leaf in leaves.items()}
        found = self._shapes(step)
        for name in _named(abstract_state.frozen):  # until 0.1 averages had them too
            found.pop(f"ema/{name}", None)
        if difference := explain_mismatch(shapes, found):
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.folder} does not fit this run; a run is resumed with the "
                f"model and the optimiser it was started with:\n{difference}"
            )
        args = {
            name: ocp.args.PyTreeRestore(
                leaves, ocp.checkpoint_utils.construct_restore_args(leaves), partial_restore=True
            )
            for name, leaves in wanted.items()
        }
        with _readable(self.folder / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(**args, data=ocp.args.JsonRestore()))
        return _state(abstract_state, {name: restored[name] for name in args}), restored["data"]["state"]

    def weights(self, step: int | None = None, *, raw: bool = False) -> dict[str, Any]:
        """Parameters alone, nested dicts of arrays on the host: their average if the run has one, unless `raw`."""
        self.wait()
        step = self._known(step)
        shapes = self._shapes(step)

        def item(name: str) -> str:
            return "params" if raw or f"ema/{name}" not in shapes else "ema"

        names = [name.removeprefix("params/") for name in shapes if name.startswith("params/")]
        args = {}
        for part in {item(name) for name in names}:
            leaves = {
                name: np.broadcast_to(np.float32(0), shapes[f"{part}/{name}"]) for name in names if item(name) == part
            }
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
            args[part] = ocp.args.PyTreeRestore(leaves, as_numpy, partial_restore=True)
        with _readable(self.folder / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        flat = {name: restored[item(name)][name] for name in names}
        return unflatten_dict(flat, sep="/")

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest checkpoint's step; None if there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the best checkpoint, of equal ones the newest; None if nothing was measured."""
        scores = {step: self._score(self.metrics(step)) for step in self.steps()}
        measured = [step for step, score in scores.items() if score > -math.inf]
        return max(reversed(measured), key=scores.__getitem__, default=None)

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics measured at a step; {} if there are none."""
        file = self.folder / str(step) / "metrics" / "metrics"
        return json.loads(file.read_text()) if file.exists() else {}

    def check(self) -> None:
        """Raises OSError if a save in the background has failed; does not wait."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until everything is written. Raises OSError if a save has failed."""
        with self._explained():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the last save and lets go of the folder. Raises OSError if that save failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _known(self, step: int | None) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no complete checkpoint in {self.folder}")
        if step is not None and step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} in {self.folder}; there are {steps}")
        return steps[-1] if step is None else step

    def _shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The shape of every array of a checkpoint, by "item/name"."""
        with _readable(self.folder / str(step)):
            metadata = self._manager.item_metadata(step)
            return {
                f"{item}/{name}": tuple(leaf.shape)
                for item in _ARRAYS
                if metadata.get(item) is not None
                for name, leaf in metadata[item].items()
            }

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises OSError for whatever the libraries below raise if writing fails."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {first_line(error)}. Make room or check the "
                f"folder; the run can be resumed from step {self.latest()}"
            ) from error


def check_room(folder: PathLike, abstract_state: Any, keep_last: int, keep_best: bool) -> None:
    """Says before a run computes anything if its checkpoints cannot be written.

    Args:
        folder, keep_last, keep_best: as `Checkpoints` takes them; beside those that are kept, one is being written.
        abstract_state: what a checkpoint holds.

    Raises:
        OSError: the folder cannot be made or written into, or the disk has no room for what is not there yet.
    """
    path = _path(folder)
    _make_writable(path)
    if "://" in str(folder):
        return
    there = sum(child.name.isdecimal() for child in path.iterdir())
    more = max(keep_last + keep_best + 1 - there, 1)
    needed = more * state_bytes(abstract_state)
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(
            f"the disk of {path} has {free / 1e9:.2f} GB free, and the checkpoints still to come ({more}) take "
            f"{needed / 1e9:.2f} GB; make room, choose another folder or keep fewer (run.keep_last)"
        )


def state_bytes(abstract_state: Any) -> int:
    """Size of a checkpoint, of all processes together."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(abstract_state))


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """The arrays that are written as one item each, by their names."""
    parts = {
        "params": _named(state.frozen) | _named(state.params),
        "ema": _named(state.ema),
        "optimiser": _named(_optimiser(state)),
    }
    return {name: part for name, part in parts.items() if part}


def _optimiser(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "key": state.key, "state": state.opt_state}


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _state(like: TrainState, items: dict[str, dict[str, Any]]) -> TrainState:
    def filled(part: Any, name: str) -> Any:
        names = _named(part)
        return jax.tree.unflatten(jax.tree.structure(part), [items[name][leaf] for leaf in names])

    optimiser = filled(_optimiser(like), "optimiser")
    return TrainState(
        step=optimiser["step"],
        params=filled(like.params, "params"),
        opt_state=optimiser["state"],
        ema=filled(like.ema, "ema"),
        key=optimiser["key"],
        frozen=filled(like.frozen, "params"),
    )


def _path(folder: PathLike) -> epath.Path:
    """Orbax wants absolute paths."""
    return epath.Path(folder) if "://" in str(folder) else epath.Path(Path(folder).absolute())


def _make_writable(folder: epath.Path) -> None:
    probe = folder / f".writable-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # file systems in the cloud have errors of their own
        raise OSError(
            f"checkpoints cannot be written into {folder}: {first_line(error)}; choose a folder that can"
        ) from error


@contextlib.contextmanager
def _readable(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise CheckpointError(f"{folder} cannot be read, it is damaged: {first_line(error)}") from error
