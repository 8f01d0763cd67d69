"""Validation as a run does it: opened before anything is computed, measured now and then, drawn as a picture."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from samjax.sharding import batch_sharding
from samjax.types import Params

from .batch import NO_MASK, Batch, on_host
from .cached.batches import CachedBatches, FeatureCache
from .config import TrainConfig
from .data.pipeline import Pipeline
from .data.report import TooManyBadRecords
from .metrics import MetricWriters
from .prefetch import Batches, DevicePrefetch, prefetch_to_device
from .progress import Progress
from .tasks import Task


class Validator:
    """Measures a run's weights on its validation data; what it finds goes to the run's writers and its console.

    Args:
        config: of the run.
        task: what the network is trained for.
        mesh: what it trains on.
        data: one pass over the validation data.
        progress: the run's console.
        at_start: "iou" before the first step, where the run was measured then.
        name: begins the names of its scores, as in "val/iou".
        option: the data's, for messages.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        mesh: Mesh,
        data: Pipeline,
        progress: Progress,
        at_start: float | None = None,
        *,
        name: str = "val",
        option: str = "data.val",
    ) -> None:
        self._config, self._task, self._mesh, self._data = config, task, mesh, data
        self._progress, self._at_start = progress, at_start
        self._name, self._option = name, option
        self.is_compiled = False  # whether there are programs for its batches
        self._cache: FeatureCache | None = None

    def open(self) -> None:
        """Reads all of the validation data once, so that what is wrong with it is said before anything is computed.

        Raises:
            TooManyBadRecords: more records are bad than `data.max_bad_share`.
            ValueError: no record has a mask to validate on.
            OSError: data cannot be reached.
        """
        counts = np.zeros(2, np.int64)  # photos with masks, and masks
        try:
            with self._data.batches() as batches:
                for batch in self._progress.over(batches, f"reading {self._option}", self._data.steps):
                    counts += [batch.valid.any(1).sum(), batch.valid.sum()]
        except TooManyBadRecords as error:
            raise TooManyBadRecords(f"{self._option}: {error}") from error
        if jax.process_count() == 1:
            what = "validation data" if self._name == "val" else f"data of {self._option}"
            self._progress.message("{}: {:,} photos with {:,} masks".format(what, *counts))
        else:  # each has read a part of the photos, which may be none
            counts = multihost_utils.process_allgather(counts.astype(np.int32)).sum(0)
        if not counts.any():
            raise ValueError(NO_MASK.replace("data.val", self._option))

    def measure(self, step: int, params: Params, writers: MetricWriters) -> dict[str, float]:
        """The scores of parameters after `step` updates, as the task gives them, written and shown."""
        batches = self._on_device(self._config.data.prefetch, keep_images=False)
        with self._progress.aside("validation"), batches as on_device:
            measured = self._task.validate(params, self._watched(on_device))
        writers.write(step, {f"{self._name}/{name}": value for name, value in measured.items()})
        if step == 0:
            self._at_start = measured["iou"]
        before = f" ({self._at_start:.4f} at step 0)" if step and self._at_start is not None else ""
        parts = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if name.startswith("iou_"))
        headline = f"step {step}: {self._name}/iou {measured['iou']:.4f}{before}"
        self._progress.message(headline + f"; {parts}" * bool(parts))
        return measured

    def draw(self, step: int, params: Params, writers: MetricWriters) -> None:
        """A picture of what the parameters predict for the first photos."""
        with self._progress.aside("picture"), self._on_device(1, keep_images=True) as on_device:
            batch = next(on_device).batch
            if on_host(batch.valid).any():  # otherwise all of its photos are bad
                writers.picture(step, "predictions", self._task.picture(params, batch))

    def take_features(self, cache: FeatureCache) -> None:
        """From now on, features of photos are those of a cache."""
        self._cache = cache

    @contextlib.contextmanager
    def _on_device(self, depth: int, *, keep_images: bool) -> Iterator[DevicePrefetch]:
        with self._data.batches() as batches:
            source: Batches = batches
            if self._cache is not None:
                source = CachedBatches(batches, self._cache, keep_images=keep_images, measured=True)
            with prefetch_to_device(source, batch_sharding(self._mesh), depth) as ready:
                yield ready

    def _watched(self, on_device: DevicePrefetch) -> Iterator[Batch]:
        """Batches, with a word before and after the first one ever, for which the programs are compiled."""
        with contextlib.ExitStack() as compiling:
            if not self.is_compiled:
                compiling.enter_context(self._progress.compiling("validation, with its first batch,"))
            for fetched in self._progress.over(on_device, "validating", self._data.steps):
                yield fetched.batch
                compiling.close()
        self.is_compiled = True
