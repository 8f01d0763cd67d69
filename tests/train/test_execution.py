"""The sizes of blocks and the execution of a step, by device and mesh."""

from unittest.mock import Mock

import pytest
from jax.sharding import Mesh

from samjax.train.config import RunConfig, TrainConfig
from samjax.train.execution import blocks_for, encoder_execution, validation_execution


def mesh_of(platform, data=1, fsdp=1):
    """As much of a mesh as the choice depends on; there are no accelerators here."""
    devices = Mock(flat=[Mock(platform=platform)])
    return Mock(spec=Mesh, devices=devices, size=data * fsdp, shape={"data": data, "fsdp": fsdp})


def config_of(**run):
    return TrainConfig(run=RunConfig(**{"batch": 64, **run}))


@pytest.mark.parametrize(
    ("mesh", "run", "images_and_masks"),
    [
        (mesh_of("cpu"), {}, (1, 2)),  # so few that they stay in cache
        (mesh_of("cpu", data=4), {}, (4, 2)),  # likewise on each device
        (mesh_of("cpu", data=4), {"images_together": 6}, (16, 1)),  # 4 of the 16 on a device
        (mesh_of("gpu"), {"batch": 8}, (None, 4)),  # 32 masks on a device
        (mesh_of("tpu", data=64), {}, (None, 8)),  # so few that they stay in the chip's own memory
        (mesh_of("gpu"), {"batch": 8, "accumulate": 2}, (None, 8)),
        (mesh_of("gpu", data=2, fsdp=4), {}, (None, 4)),
        (mesh_of("gpu"), {"images_together": 4}, (4, 8)),
        (mesh_of("gpu", data=2), {"images_together": 4, "masks_together": 3}, (None, 3)),
    ],
)
def test_blocks_fit_a_device(mesh, run, images_and_masks):
    assert blocks_for(config_of(**run), mesh) == images_and_masks


def test_images_on_a_mesh_are_in_work_one_on_each_core_or_all_at_once():
    """Cores share one memory; batches are chosen for that of accelerators."""
    cores, cards, one = mesh_of("cpu", data=2, fsdp=2), mesh_of("gpu", data=4), mesh_of("cpu")
    config = config_of(images_together=3, remat=False)
    assert encoder_execution(config_of(), cores).images_per_step == 4
    assert encoder_execution(config, cores).images_per_step == 8  # 2 on a device, as 3 do not divide 16
    assert validation_execution(config, cores).images_per_step == 8
    assert encoder_execution(config, cards).images_per_step is None
    assert validation_execution(config, cards).images_per_step is None
    assert encoder_execution(config, one).images_per_step == 3
    assert not encoder_execution(config, one).remat


def test_a_step_takes_tokens_in_pieces_on_one_device_and_all_at_once_on_a_mesh():
    one, cores, cards = mesh_of("cpu"), mesh_of("cpu", data=2), mesh_of("gpu", data=2)
    assert encoder_execution(config_of(), one).tokens_per_step == 1024
    assert encoder_execution(config_of(), cores).tokens_per_step is None
    assert encoder_execution(config_of(), cards).tokens_per_step is None
    assert validation_execution(config_of(), cores).tokens_per_step == 1024  # no gradient
