"""The way that the same mathematics is run on cpu, gpu and tpu: it changes an answer by no more than rounding."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from samjax.ops.attention import AttentionForm
from samjax.ops.attention.grid import Platform

Dtype = Literal["float32", "bfloat16"]  # to compute in
_PLATFORMS: dict[str, Platform] = {"cpu": "cpu", "tpu": "tpu", "gpu": "gpu", "cuda": "gpu", "rocm": "gpu"}
# Images, prompts, masks and tokens together: on CPU one small thing after the other, so that it stays in cache
# (measured); elsewhere large batches (unmeasured).
_TOGETHER: dict[Platform, tuple[int, int, int, int | None]] = {
    "cpu": (1, 1, 1, 1024),
    "gpu": (8, 64, 16, None),
    "tpu": (8, 64, 16, None),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """The way that the same mathematics is run. Never changes the answer beyond rounding, except `compute_dtype`."""

    compute_dtype: Dtype = "float32"  # of activations; parameters stay float32
    platform: Platform = "cpu"  # to choose forms of attention for; `for_backend` takes that of this machine
    attention: AttentionForm | None = None  # over whole grids; None: as `samjax.ops.attention.choose` says
    window_attention: AttentionForm | None = None  # within windows, likewise
    images_per_step: int | None = None  # images encoded or decoded together, and the size batches are cut into
    prompts_per_step: int | None = None  # prompts of one image decoded together; None: all
    masks_per_step: int | None = None  # masks measured at the photo's size together; None: all
    tokens_per_step: int | None = None  # of an image, through an MLP of its encoder, or the nearest divisor; None: all
    remat: bool = False  # encoder blocks are computed again for the gradient instead of being remembered

    def __post_init__(self) -> None:
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"the compute dtype is float32 or bfloat16, got {self.compute_dtype!r}")
        if self.platform not in _TOGETHER:
            raise ValueError(f"the platform is cpu, gpu or tpu, got {self.platform!r}; for_backend takes JAX's names")
        if self.tokens_per_step is not None and self.tokens_per_step < 1:
            raise ValueError(f"tokens_per_step must be at least 1, or None for all, got {self.tokens_per_step}")
        for form in (self.attention, self.window_attention):
            if form is not None and not isinstance(form, AttentionForm):
                raise ValueError(f"a form of attention is of samjax.ops.attention, e.g. Blocked(rows=8), got {form!r}")

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.compute_dtype)

    @classmethod
    def for_backend(cls, backend: str | None = None, compute_dtype: Dtype = "float32") -> "Execution":
        """The settings for a platform.

        `backend` is one of JAX's ("cpu", "gpu", "cuda", "rocm", "tpu"); None is the default one. A backend that samjax
        does not know is treated as a GPU.
        """
        platform = _PLATFORMS.get(backend or jax.default_backend(), "gpu")
        images, prompts, masks, tokens = _TOGETHER[platform]
        return cls(
            compute_dtype=compute_dtype,
            platform=platform,
            images_per_step=images,
            prompts_per_step=prompts,
            masks_per_step=masks,
            tokens_per_step=tokens,
        )
