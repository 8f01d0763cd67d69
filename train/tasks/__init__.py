"""The tasks that a network is trained for; each is a folder, and the step knows none of them."""

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Key, UInt8

from samjax.config import SamConfig
from samjax.types import Params

from ..batch import Batch
from ..config import TrainConfig
from .interactive import InteractiveTask


@runtime_checkable
class Task(Protocol):
    """A loss for the step, and what is to be said about it."""

    parts: ClassVar[tuple[str, ...]]  # of SAM that the task uses; the others are frozen

    @classmethod
    def new_params(cls, config: TrainConfig, sam: SamConfig, key: Key[Array, ""]) -> Params:
        """Parameters of the task's own, freshly initialised, under names that SAM's parts have not; {} if it has none.

        They are trained, sharded and kept in checkpoints as SAM's are. Exports hold SAM's alone.
        """
        ...

    def loss(
        self,
        params: Params,
        batch: Batch,
        key: Key[Array, ""],
        position: Int32[Array | np.ndarray, ""] | Float32[Array | np.ndarray, ""],
    ) -> tuple[Float32[Array, ""], Any]:
        """A loss that JAX can differentiate in `params`, and a tree of terms to look at.

        Both are sums over what `count` counts, so that the parts of an accumulated batch can be added; the step divides
        by it. `key` is the run's and the same at every step: draws come from it folded with `batch.position`, a photo's
        place in the run, so that mesh, processes, accumulation and resuming change none.
        `position` is the step's in the schedules, for weights that change in the course of a run.
        """
        ...

    def count(self, batch: Batch) -> Int32[Array, ""]:
        """What the loss of a batch is a mean of: the number of valid masks that the task uses."""
        ...

    def numbers(self, terms: Any) -> dict[str, float]:
        """The terms of a step, on the host and divided by the number of masks, as numbers to log."""
        ...

    def validate(self, params: Params, batches: Iterable[Batch]) -> dict[str, float]:
        """Scores on batches of validation data, of which "iou" tells checkpoints apart.

        Raises ValueError if there is nothing to score.
        """
        ...

    def picture(self, params: Params, batch: Batch) -> UInt8[np.ndarray, "H W 3"]:
        """Photos of a batch with what the network makes of them. Raises ValueError if no photo has a mask."""
        ...

    def step_flops(self, masks: float, trained: Collection[str], kept: str | None) -> int:
        """Operations of a step with so many valid masks in the batch; see `flops.trained_encoder_flops`."""
        ...


def task_type(config: TrainConfig) -> type[InteractiveTask]:
    """The kind of task that a recipe trains for."""
    return InteractiveTask


def make_task(config: TrainConfig, sam: SamConfig, mesh: Mesh) -> Task:
    """The task of a recipe."""
    return task_type(config)(config, sam, mesh)
