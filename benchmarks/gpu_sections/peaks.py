"""What the device can do at most: bfloat16 matrix products, and moving bytes of its memory."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.stopwatch import Warm, in_a_row


def in_jax(setting: Setting) -> Iterator[Record]:
    side, numbers = _sizes(setting)
    a, b = (jnp.asarray(matrix, jnp.bfloat16) for matrix in _matrices(side))
    multiply = jax.jit(jnp.matmul)
    yield _products(side, in_a_row(lambda: multiply(a, b), jax_device.finish))
    vector = jnp.arange(numbers, dtype=jnp.float32)
    negate = jax.jit(jnp.negative)
    yield _bytes(numbers, in_a_row(lambda: negate(vector), jax_device.finish))


def in_torch(setting: Setting) -> Iterator[Record]:
    import torch

    from gpu_sections import torch_device

    device = torch_device.device()
    side, numbers = _sizes(setting)
    a, b = (torch.from_numpy(matrix).to(device, torch.bfloat16) for matrix in _matrices(side))
    yield _products(side, in_a_row(lambda: a @ b, torch_device.finish))
    source = torch.arange(numbers, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    yield _bytes(numbers, in_a_row(lambda: target.copy_(source), torch_device.finish))


def _sizes(setting: Setting) -> tuple[int, int]:
    """A matrix's side, and numbers that no cache holds."""
    return (64, 1 << 12) if setting.tiny else (8192, 1 << 29)


def _matrices(side: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((side, side), np.float32) for _ in range(2)]  # products of zeros are faster


def _products(side: int, timing: Warm) -> Record:
    what = f"bfloat16 product of {side} x {side} matrices"
    return {"kind": "peak", "what": what, "flops_per_second": 2 * side**3 / timing.seconds}


def _bytes(numbers: int, timing: Warm) -> Record:
    what = f"{4 * numbers:,} bytes of memory read and as many written"
    return {"kind": "peak", "what": what, "bytes_per_second": 2 * 4 * numbers / timing.seconds}
