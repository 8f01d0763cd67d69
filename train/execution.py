"""`Execution` of encoder and decoder in training, chosen by device and mesh, without an influence on the loss."""

import dataclasses

from jax.sharding import Mesh

from samjax.execution import Execution

from .config import TrainConfig

# Masks of a block, by platform. On CPU a few stay in cache. On a TPU what eight masks need stays in the chip's own
# memory for the most part: the step of docs/benchmarks.md moves 61 GB, with 16 masks 116 and with 64 214. On a GPU,
# unmeasured.
MASKS_TOGETHER = {"cpu": 2, "tpu": 8, "gpu": 32}


def encoder_execution(config: TrainConfig, mesh: Mesh) -> Execution:
    """The execution of the encoder in a step, in pieces of `images_together`."""
    how = Execution.for_backend(_platform(mesh), config.run.compute_dtype)
    together = config.run.images_together or how.images_per_step if mesh.size == 1 else images_together(config, mesh)
    # In pieces, a gradient on a mesh would add up over the devices once for each, and keep more: by XLA's account
    # ViT-B's takes 14.6 GB for 4 images on 2 devices, and 12.3 so.
    tokens = how.tokens_per_step if mesh.size == 1 else None
    return dataclasses.replace(how, images_per_step=together, tokens_per_step=tokens, remat=config.run.remat)


def validation_execution(config: TrainConfig, mesh: Mesh) -> Execution:
    """The execution of validation, on the same devices."""
    how = Execution.for_backend(_platform(mesh), config.run.compute_dtype)
    return dataclasses.replace(how, images_per_step=images_together(config, mesh)) if mesh.size > 1 else how


def decoder_execution(config: TrainConfig) -> Execution:
    """The execution of a block of masks: all at once, `blocks_for` having cut it to size."""
    return Execution(compute_dtype=config.run.compute_dtype)


def images_together(config: TrainConfig, mesh: Mesh) -> int | None:
    """Images in work at a time; None: all, as on accelerators, whose memory batches are chosen for.

    On CPU one for each device, or as many as `run.images_together` says: cores share one memory.
    """
    run = config.run
    if mesh.size == 1:
        return run.images_together or (1 if _platform(mesh) == "cpu" else None)
    if _platform(mesh) != "cpu":
        return None
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    on_device = run.batch // run.accumulate // devices
    wanted = run.images_together or 1
    return devices * max(n for n in range(1, on_device + 1) if on_device % n == 0 and n <= wanted)


def blocks_for(config: TrainConfig, mesh: Mesh) -> tuple[int | None, int]:
    """Images and masks of a block; None: all images.

    By default as many masks a device as `MASKS_TOGETHER` says: a ViT-B's mask takes about 100 MB while its gradient is
    computed.
    """
    images = images_together(config, mesh)
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    on_device = max((images or config.run.batch // config.run.accumulate) // devices, 1)
    masks = MASKS_TOGETHER[_platform(mesh)]
    return images, config.run.masks_together or max(masks // on_device, 1)


def _platform(mesh: Mesh) -> str:
    return mesh.devices.flat[0].platform
