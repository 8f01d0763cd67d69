"""The interactive task: what a step differentiates, what is logged of it, and how it is validated."""

import dataclasses
import functools
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Int32, Key, UInt8

from samjax.config import SamConfig
from samjax.types import Params

from ...batch import Batch
from ...config import TrainConfig
from ...encoder import batch_features
from ...execution import blocks_for, decoder_execution, validation_execution
from ...flops import step_flops, trained_encoder_flops
from ...window import seen_in_training, window_origins
from .loss import Given, passes_loss
from .losses import MaskLoss, balanced_weight
from .passes import PassSettings
from .pictures import picture
from .validation import validate


@dataclasses.dataclass(frozen=True, eq=False)
class InteractiveTask:
    """Prompts by a simulated user, in several passes over every mask; a `samjax.train.tasks.Task`."""

    config: TrainConfig
    sam: SamConfig
    mesh: Mesh

    parts: ClassVar[tuple[str, ...]] = ("image_encoder", "prompt_encoder", "mask_decoder")

    @classmethod
    def new_params(cls, config: TrainConfig, sam: SamConfig, key: Key[Array, ""]) -> Params:
        """None: all parameters are SAM's."""
        return {}

    def count(self, batch: Batch) -> Int32[Array, ""]:
        """The number of valid masks."""
        return batch.valid.sum(dtype=jnp.int32)

    def loss(
        self,
        params: Params,
        batch: Batch,
        key: Key[Array, ""],
        position: Int32[Array | np.ndarray, ""] | Float32[Array | np.ndarray, ""],
    ) -> tuple[Float32[Array, ""], MaskLoss]:
        """The losses of all passes, and their terms, which have one value a pass; summed over the batch's masks."""
        config, run = self.config, self.config.run
        # From a photo's place in the run, and then a mask's slot, so that mesh, processes, accumulation and resuming
        # change no draw.
        image_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch.position)
        keys: Any = jax.vmap(functools.partial(jax.random.split, num=3))(image_keys)
        path_keys, mask_keys, window_keys = keys[:, 0], keys[:, 1], keys[:, 2]
        origin = window_origins(self.sam, config.model.window, window_keys)
        features = batch_features(config, self.sam, self.mesh, params, batch, path_keys, origin)
        # The heads are small and used in every pass: gathered once, and not in each.
        heads = {name: params[name] for name in ("prompt_encoder", "mask_decoder")}
        heads = lax.with_sharding_constraint(heads, NamedSharding(self.mesh, P()))
        settings = self._settings()
        balanced = balanced_weight(config.loss, run.steps, jnp.asarray(position))
        given = Given(batch, mask_keys, origin, balanced)
        found: Any = passes_loss(settings, blocks_for(config, self.mesh), heads, features, given)
        total, terms = found
        over_passes = 1.0 if config.loss.over_passes == "sum" else 1 / config.interaction.passes
        return total * over_passes, terms

    def _settings(self) -> PassSettings:
        config, hq, loss = self.config, None, self.config.loss
        if config.tune.mode.strip() == "hq":
            # As its authors train it: the token's own mask, and no predicted IoU, which is SAM's.
            hq, loss = "only", dataclasses.replace(loss, iou=0.0)
        execution = decoder_execution(config)
        return PassSettings(self.sam, config.interaction, loss, execution, config.run.dropout, hq)

    def numbers(self, terms: MaskLoss) -> dict[str, float]:
        """The terms of a step, means over masks, as named numbers: means over passes, unweighted."""
        numbers = {
            "focal": terms.focal.mean(),
            "dice": terms.dice.mean(),
            "balanced": terms.balanced.mean(),
            "iou_error": terms.iou_error.mean(),
            "iou_first": terms.iou[0],  # of the first pass's most confident mask
            "iou_first_oracle": terms.best_iou[0],
            "iou_last": terms.iou[-1],
        }
        return {name: float(number) for name, number in numbers.items()}

    def validate(self, params: Params, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean IoU after clicks and for boxes; see `validation.validate`."""
        return validate(self.sam, params, batches, validation_execution(self.config, self.mesh))

    def picture(self, params: Params, batch: Batch) -> UInt8[np.ndarray, "H W 3"]:
        """Photos with what the network answers; see `pictures.picture`."""
        return picture(self.sam, params, batch, validation_execution(self.config, self.mesh))

    def step_flops(self, masks: float, trained: Collection[str], kept: str | None) -> int:
        """Operations of a step with so many valid masks in the batch; see `flops.trained_encoder_flops`."""
        images, seen = self.config.run.batch, seen_in_training(self.config, self.sam)
        return step_flops(
            seen,
            images=images,
            masks=masks / images,
            passes=self.config.interaction.passes,
            prompt_tokens=2 + self.config.interaction.corrections,
            encoder=trained_encoder_flops(seen, trained, kept),
        )
