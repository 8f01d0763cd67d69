"""The devices that JAX simulates on CPU for a run.

A decoder's products for a few masks are small, and several cores at one photo wait for each other. So each core is a
device of its own, over which the photos of a batch are spread as over any mesh: 1.1 to 1.3 times as fast on two cores.
What comes out is the same but for rounding.
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax

from samjax.config import SamConfig

from .config import TrainConfig
from .trainable import trained_shapes
from .window import seen_in_training

# Measured for one photo, float32: a ViT-B takes 6.7 GB on each device, 8.3 times the logits of a global attention; a
# ViT-tiny 0.32. Beside the encoder's gradient there are some masks.
_LOGITS, _MASKS = 8, 300_000_000
_USABLE = 0.8  # of the machine's memory


def use_cores(config: TrainConfig, network: Callable[[], SamConfig]) -> str | None:
    """Makes JAX simulate a device for each core, before it starts, where nobody has said otherwise.

    `network` tells the network that is trained, and is asked only if it matters. Returns a word on cores that are left
    out; None if there is nothing to say. Nothing changes on accelerators.
    """
    run, cores = config.run, physical_cores()
    if run.cpu_devices is not None:
        if run.cpu_devices > 1:
            jax.config.update("jax_num_cpu_devices", run.cpu_devices)
        return None
    told = jax.config.jax_num_cpu_devices != -1  # pyright: ignore[reportAttributeAccessIssue]  (made at run time)
    told = told or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    axes = run.data_axis, run.fsdp_axis, run.tensor_axis
    if cores == 1 or told or axes != (-1, 1, 1) or jax.distributed.is_initialized():
        return None
    devices, why = devices_for(config, network(), cores, physical_memory())
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # JAX has started
        return None
    return f"masks are computed on {devices} of {cores} cores: {why}" if why and on_cpu() else None


def devices_for(config: TrainConfig, sam: SamConfig, cores: int, memory: int | None) -> tuple[int, str]:
    """Devices for so many cores and bytes of memory (None: unknown), and why there are not as many as cores.

    They divide the photos that are computed together, and the memory suffices for one photo's gradient on each.
    """
    seen, needed = seen_in_training(config, sam).image_encoder, _MASKS
    if "image_encoder" in trained_shapes(config, sam):
        heads = getattr(seen, "heads", 0)  # encoders of other families may have none
        needed += _LOGITS * heads * (seen.grid[0] * seen.grid[1]) ** 2 * 4
    fitting = cores if memory is None else min(max(int(_USABLE * memory / needed), 1), cores)
    photos = config.run.batch // config.run.accumulate
    devices = max(n for n in range(1, fitting + 1) if photos % n == 0)
    if devices == cores:
        return devices, ""
    if devices == fitting:
        return devices, f"each takes about {needed / 1e9:.1f} GB"
    together = "1 photo" if photos == 1 else f"{photos} photos"
    return devices, f"{together} at a time (run.batch / run.accumulate) cannot be spread over {fitting}"


def on_cpu() -> bool:
    """True if JAX, which this starts, computes on CPU by default."""
    return jax.default_backend() == "cpu"


def physical_cores() -> int:
    """The cores that this process may run on, hyper-threads counted once where Linux tells."""
    try:
        logical = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
    siblings = {_siblings(number) for number in logical}
    return max(len(siblings), 1)


def _siblings(number: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text("ascii").strip()
    except OSError:
        return str(number)


def physical_memory() -> int | None:
    """Bytes of the machine's memory, or of its part that a container may use; None where the system does not say."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
    except OSError:
        return memory
    return min(memory, int(allowed)) if allowed.isdecimal() else memory
