"""What a run keeps of its photos' features: decided, or refused, before anything is computed."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from samjax.config import SamConfig
from samjax.execution import Execution
from samjax.model import abstract_params, encode

from ..config import TrainConfig
from ..cores import physical_memory
from ..trainable import trained_shapes
from ..trainable.freezing import parameter_names
from .point import IMAGE, arrays_at, latest_point


@dataclasses.dataclass(frozen=True)
class CachePlan:
    """Where in the encoder features are kept, in which form, and what that takes."""

    point: str  # of `latest_point`
    dtype: str  # that they are kept in
    on_disk: bool
    photos: int  # of training, as many times as they have views, and of validation
    photo_bytes: int  # of one

    @property
    def total_bytes(self) -> int:
        """Of all photos."""
        return self.photos * self.photo_bytes

    def __str__(self) -> str:
        where = "on disk" if self.on_disk else "in memory"
        after = "the image encoder" if self.point == IMAGE else self.point
        return (
            f"features after {after} are computed once and kept {where}: {self.photos:,} photos of "
            f"{self.photo_bytes / 1e6:.1f} MB in {self.dtype}, {self.total_bytes / 1e9:.2f} GB"
        )


def make_plan(config: TrainConfig, sam: SamConfig, photos: int, measured: int) -> tuple[CachePlan | None, str]:
    """A run's plan and a line about it; None if nothing is kept, with the reason.

    Args:
        config: the recipe.
        sam: the network.
        photos: that are trained on.
        measured: that are validated on.

    Raises:
        ValueError: features are to be kept or rounded, and cannot be kept or take more than `cache.budget_gb`.
    """
    cache = config.cache
    if cache.features == "off":
        return None, ""
    point = latest_point(sam, parameter_names(trained_shapes(config, sam)))
    reason = _obstacle(config, point)
    # Rounded features are others than those computed anew: whether they are kept may not hang on the machine.
    rounds = jnp.dtype(cache.dtype or config.run.compute_dtype).itemsize < jnp.dtype(config.run.compute_dtype).itemsize
    if point is not None and reason is None:
        kept = cache.dtype or config.run.compute_dtype
        count = photos * max(cache.views, 1) + measured
        plan = CachePlan(point, kept, cache.features == "disk", count, _photo_bytes(sam, point, kept))
        if plan.total_bytes <= cache.budget_gb * 1e9 and (cache.features != "auto" or rounds or _is_little(plan)):
            return plan, str(plan)
        reason = (
            f"{plan.photos:,} photos of {plan.photo_bytes / 1e6:.1f} MB take {plan.total_bytes / 1e9:.2f} GB, and "
            f"cache.budget_gb is {cache.budget_gb:g}"
            + "; auto takes an eighth of the machine's memory at most"
            * (cache.features == "auto" and not rounds)
        )
    if cache.features == "auto" and rounds:
        raise ValueError(
            f"cache.dtype {cache.dtype} rounds features that are kept, and none can be: {reason}; "
            "leave --cache.dtype out"
        )
    if cache.features != "auto":
        raise ValueError(f"cache.features {cache.features} keeps nothing here: {reason}")
    return None, f"features are computed at each step: {reason}"


def _is_little(plan: CachePlan) -> bool:
    """Whether every machine has memory for features that nobody asked it to keep: they take no more than an eighth."""
    memory = physical_memory()
    fits = memory is None or plan.total_bytes <= memory / 8
    # Processes that decided differently would run different programs, and wait for each other forever.
    return bool(np.all(multihost_utils.process_allgather(np.array(fits)))) if jax.process_count() > 1 else fits


def _obstacle(config: TrainConfig, point: str | None) -> str | None:
    """Why features of this recipe cannot be kept; None if they can."""
    data = config.data
    if point is None:
        return f"tune.mode {config.tune.mode} trains the image encoder from its first layer on"
    if config.model.window is not None:
        return "training sees another window of a photo each time (model.window)"
    if config.run.drop_path:
        return "paths are dropped within the encoder (run.drop_path)"
    varied = data.scale != (1.0, 1.0) or any((data.flip, data.brightness, data.contrast, data.saturation, data.hue))
    if varied and not config.cache.views:
        return "photos are augmented anew each time; --cache.views 8 gives each photo eight fixed augmentations"
    return None


def _photo_bytes(sam: SamConfig, point: str, dtype: str) -> int:
    names = arrays_at(sam, point)
    pixels = jax.ShapeDtypeStruct((*sam.image_size, sam.channels), jnp.float32)
    taps = tuple(name for name in names if name != IMAGE)
    found = jax.eval_shape(lambda p, x: encode(sam, p, x, Execution(), taps=taps), abstract_params(sam), pixels)
    shapes = [found.image.shape if name == IMAGE else found.taps[name].shape for name in names]
    return sum(math.prod(shape) for shape in shapes) * jnp.dtype(dtype).itemsize
