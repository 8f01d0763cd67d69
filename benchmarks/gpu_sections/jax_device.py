"""JAX's device: its name, waiting for it, its memory, and programs compiled for it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gpu_sections.stopwatch import cpu_name


class Compiled(NamedTuple):
    """A program that is ready to run, and what that took."""

    call: Callable[..., Any]  # takes the arguments that are not static
    seconds: float  # of tracing and compiling
    bytes: int | None  # arguments, results and temporaries, by the compiler's count


def card() -> str:
    device = jax.devices()[0]
    return cpu_name() if device.platform == "cpu" else device.device_kind


def finish(result: Any) -> None:
    jax.block_until_ready(result)


def peak_bytes() -> int | None:
    """The most that this process has held on the device so far; None on a CPU, where JAX does not count."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def compiled(program: Any, *arguments: Any, **static: Any) -> Compiled:
    """A jitted function compiled for its arguments."""
    start = time.perf_counter()
    executable = program.lower(*arguments, **static).compile()
    seconds = time.perf_counter() - start
    memory = executable.memory_analysis()
    if memory is None:
        return Compiled(executable, seconds, None)
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(executable, seconds, size - memory.alias_size_in_bytes)  # an alias is argument and result in one
