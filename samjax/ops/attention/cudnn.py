"""cuDNN's fused attention on folded queries and keys, for NVIDIA's GPUs.

Folded, because cuDNN takes a bias only as an array of all logits, and gives its gradient in special shapes alone.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from samjax.ops.attention.folded import fold
from samjax.ops.attention.grid import AttentionForm, Tables, Workload

_MULTIPLE = 8  # of channels and of tokens
_NEVER = -30000.0  # the logit of a key that only pads; float16 could hold it


@dataclasses.dataclass(frozen=True)
class CuDNN(AttentionForm):
    """`jax.nn.dot_product_attention` on folded queries and keys."""

    implementation: Literal["cudnn", "xla"] = "cudnn"  # the latter runs anywhere: for tests

    def unsupported(self, work: Workload) -> str | None:
        if self.implementation == "xla":
            return None
        if work.platform != "gpu":
            return "it is for NVIDIA's GPUs"
        if work.dtype not in (jnp.bfloat16, jnp.float16):
            return f"it computes in bfloat16 or float16, not {work.dtype}"
        capability = _compute_capability()
        if capability is None:
            return "there is no NVIDIA GPU"
        most = 256 if capability >= (9, 0) else 128 if capability >= (8, 0) else 0
        channels = _channels(work.head_dim, work.sides)
        if channels > most:
            return f"folded heads of {channels} channels are more than the {most} of compute capability {capability}"
        return None

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        height, width = qkv.shape[:2]
        tokens, odd = height * width, height * width % _MULTIPLE > 0
        q, k, v = jnp.moveaxis(qkv.reshape(height, width, 3, heads, -1), 2, 0)
        depth = q.shape[-1]
        q, k = fold(q, k, tables)
        channels = _channels(depth, (height, width))
        q, k, v = (_laid_out(x, _padded(tokens), channels) for x in (q, k, v))
        if odd:  # the last channel tells keys that only pad
            q, k = q.at[..., -1].set(1), k.at[tokens:, :, -1].set(_NEVER)
        attend = functools.partial(jax.nn.dot_product_attention, scale=1.0, implementation=self.implementation)
        result = attend(q[None], k[None], v[None])[0]
        return result[:tokens, :, :depth].reshape(height, width, heads * depth)


def _laid_out(x: Float[Array, "H W heads D"], tokens: int, channels: int) -> Float[Array, "tokens heads channels"]:
    """One token after the other, tokens and channels padded with zeros."""
    x = x.reshape(-1, *x.shape[2:])
    return jnp.pad(x, ((0, tokens - len(x)), (0, 0), (0, channels - x.shape[-1])))


def _channels(head_dim: int, grid: tuple[int, int]) -> int:
    """Of a folded head, with one for keys that only pad if there are any."""
    height, width = grid
    return _padded(head_dim + height + width + (height * width % _MULTIPLE > 0))


def _padded(number: int) -> int:
    return -(-number // _MULTIPLE) * _MULTIPLE


@functools.cache
def _compute_capability() -> tuple[int, int] | None:
    """Of this machine's first NVIDIA GPU; None if it has none that JAX can use."""
    try:
        device, *_ = jax.local_devices(backend="cuda")
    except RuntimeError:
        return None
    major, minor = str(device.compute_capability).split(".")
    return int(major), int(minor)
