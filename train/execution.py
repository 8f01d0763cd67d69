"""`Execution` of encoder and decoder in training, chosen by device and mesh, without an influence on the loss."""

import dataclasses

from jax.sharding import Mesh

from samjax.execution import Execution

from .config import TrainConfig


def encoder_execution(config: TrainConfig, mesh: Mesh) -> Execution:
    """The execution of the encoder in a step: on one device in pieces that fit it, on several all images at once,
    because a loop over a sharded axis would gather it."""
    how = Execution.for_backend(mesh.devices.flat[0].platform, config.run.compute_dtype)
    together = None if mesh.size > 1 else config.run.images_together or how.images_per_step
    return dataclasses.replace(how, images_per_step=together, remat=config.run.remat)


def validation_execution(config: TrainConfig, mesh: Mesh) -> Execution:
    """The execution of validation, on the same devices."""
    how = Execution.for_backend(mesh.devices.flat[0].platform, config.run.compute_dtype)
    return dataclasses.replace(how, images_per_step=None) if mesh.size > 1 else how


def decoder_execution(config: TrainConfig) -> Execution:
    """The execution of a block of masks: all at once, `blocks_for` having cut it to size."""
    return Execution(compute_dtype=config.run.compute_dtype)


def blocks_for(config: TrainConfig, mesh: Mesh) -> tuple[int | None, int]:
    """Images and masks of a block; None: all images, as on a mesh, where a loop over a sharded axis would gather it.

    By default a few masks a device on CPU, so that they stay in cache, and 32 on accelerators: a ViT-B's mask takes
    about 100 MB while its gradient is computed.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    images = None if mesh.size > 1 else config.run.images_together or (1 if on_cpu else None)
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    on_device = images or max(config.run.batch // config.run.accumulate // devices, 1)
    return images, config.run.masks_together or max((2 if on_cpu else 32) // on_device, 1)
