"""PyTorch's device: its name, waiting for it, its memory, and models on it."""

from typing import Any

import torch

from gpu_sections.stopwatch import cpu_name


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> torch.device:
    return torch.device("cuda" if on_gpu() else "cpu")


def card() -> str:
    return torch.cuda.get_device_name() if on_gpu() else cpu_name()


def finish(result: Any = None) -> None:
    if on_gpu():
        torch.cuda.synchronize()


def peak_bytes() -> int | None:
    """The most that was held on the device since `forget_peak`; None on a CPU, where PyTorch does not count."""
    return torch.cuda.max_memory_allocated() if on_gpu() else None


def forget_peak() -> None:
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def multiply_exactly() -> None:
    """float32 products in float32, as on a CPU."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def multiply_in_tf32() -> None:
    """float32 products as JAX does them on a GPU unless it is told otherwise."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
