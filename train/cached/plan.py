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
    trained: int  # photos of training
    views: int  # of each
    photo_bytes: int  # of each view
    measured: int  # photos of validation, whose features are not rounded: scores are those of an export
    measured_dtype: str
    measured_bytes: int  # of each

    @property
    def photos(self) -> int:
        """How many are kept in all; one that is trained on and validated on counts twice."""
        return self.trained * self.views + self.measured

    @property
    def total_bytes(self) -> int:
        """Of all photos."""
        return self.trained * self.views * self.photo_bytes + self.measured * self.measured_bytes

    @property
    def counted(self) -> str:
        """How the photos add up, and what each takes."""
        views = f" x {self.views} views" * (self.views > 1)
        measured = f" + {self.measured:,} for validation" * (self.measured > 0)
        size = f"{self.photo_bytes / 1e6:.1f} MB each in {self.dtype}"
        if self.measured and self.measured_dtype != self.dtype:
            size += f" and for validation {self.measured_bytes / 1e6:.1f} MB in {self.measured_dtype}"
        return f"{self.trained:,} photos{views}{measured}, {size}"

    def __str__(self) -> str:
        where = "on disk" if self.on_disk else "in memory"
        after = "the image encoder" if self.point == IMAGE else self.point
        total = f"{self.total_bytes / 1e9:.2f} GB"
        return f"features after {after} are computed once and kept {where}: {self.counted}, {total}"


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
    point, compute = _point(config, sam), config.run.compute_dtype
    kept = cache.dtype or compute
    reason = _obstacle(config, point)
    # Rounded features are others than those computed anew: whether they are kept may not hang on the machine.
    rounds = jnp.dtype(kept).itemsize < jnp.dtype(compute).itemsize
    if point is not None and reason is None:
        exact = compute if rounds else kept
        sizes = {dtype: _photo_bytes(sam, point, dtype) for dtype in (kept, exact)}
        seen = photos, max(cache.views, 1), sizes[kept]
        plan = CachePlan(point, kept, cache.features == "disk", *seen, measured, exact, sizes[exact])
        within = plan.total_bytes <= cache.budget_gb * 1e9
        if within and (cache.features != "auto" or rounds or _is_little(plan)):
            return plan, str(plan)
        reason = f"{plan.counted}, take {plan.total_bytes / 1e9:.2f} GB, and " + (
            "auto takes an eighth of the machine's memory at most; --cache.features memory or disk keeps them"
            if within
            else f"cache.budget_gb is {cache.budget_gb:g}; {_smaller(config, kept)}"
        )
    if cache.features == "auto" and rounds:
        raise ValueError(
            f"cache.dtype {cache.dtype} rounds features that are kept, and none can be: {reason}; "
            "without --cache.dtype they are computed at each step"
        )
    if cache.features != "auto":
        raise ValueError(f"cache.features {cache.features} keeps nothing here: {reason}")
    return None, f"features are computed at each step: {reason}"


def views(config: TrainConfig, sam: SamConfig) -> int:
    """The fixed augmentations of each photo: `cache.views`, and 0 where no features could be kept, so that a recipe
    does not augment less for nothing. The same on every machine and when a run resumes, whatever is kept."""
    return config.cache.views if _obstacle(config, _point(config, sam)) is None else 0


def _point(config: TrainConfig, sam: SamConfig) -> str | None:
    return latest_point(sam, parameter_names(trained_shapes(config, sam)))


def _smaller(config: TrainConfig, dtype: str) -> str:
    """Options that make features fit into the budget."""
    options = ["--cache.dtype bfloat16 halves them"] if dtype == "float32" else []
    options += ["fewer --cache.views take less"] if config.cache.views > 1 else []
    return ", ".join([*options, "--cache.budget-gb allows more"])


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
