"""A device for each core, without being asked."""

import json

import pytest

from samjax.config import VARIANTS
from samjax.train.config import OptimConfig, RunConfig, TrainConfig
from samjax.train.cores import devices_for, physical_cores

GB = 10**9
FROZEN = (r"^image_encoder/",)


@pytest.mark.parametrize(
    ("variant", "run", "frozen", "cores", "memory", "expected"),
    [
        ("vit_tiny", {"batch": 8}, (), 2, 16 * GB, (2, "")),
        ("vit_tiny", {"batch": 8}, (), 2, None, (2, "")),
        ("vit_tiny", {"batch": 8, "accumulate": 4}, (), 2, 16 * GB, (2, "")),
        ("vit_tiny", {"batch": 6}, (), 4, 16 * GB, (3, "6 photos at a time (run.batch / run.accumulate) cannot")),
        ("vit_tiny", {"batch": 1}, (), 2, 16 * GB, (1, "1 photo at a time (run.batch / run.accumulate) cannot")),
        ("vit_b", {"batch": 4}, (), 2, 24 * GB, (2, "")),
        ("vit_b", {"batch": 4}, (), 2, 12 * GB, (1, "each takes about 6.7 GB")),
        ("vit_b", {"batch": 64}, (), 64, 64 * GB, (4, "64 photos")),
        ("vit_b", {"batch": 4}, FROZEN, 4, 8 * GB, (4, "")),
    ],
)
def test_as_many_as_cores_where_the_batch_divides_and_memory_suffices(variant, run, frozen, cores, memory, expected):
    config = TrainConfig(optim=OptimConfig(frozen=frozen), run=RunConfig(**run))
    devices, why = devices_for(config, VARIANTS[variant], cores, memory)
    assert devices == expected[0]
    assert (expected[1] in why) if expected[1] else not why


DEVICES = """
import json, sys
import jax
from samjax.config import VARIANTS
from samjax.train import cores
from samjax.train.config import RunConfig, TrainConfig
cores.physical_cores = lambda: 3
said = cores.use_cores(TrainConfig(run=RunConfig(FIELDS)), lambda: VARIANTS["vit_tiny"])
print(json.dumps([len(jax.devices()), said]))
"""


@pytest.mark.parametrize(
    ("run", "environment", "devices"),
    [
        ("batch=6", {}, 3),
        ("batch=6, cpu_devices=2", {}, 2),
        ("batch=6, cpu_devices=1", {}, 1),
        ("batch=6, data_axis=1", {}, 1),
        ("batch=6", {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, 2),
        ("batch=6", {"JAX_NUM_CPU_DEVICES": "2"}, 2),
        ("batch=5", {}, 1),
    ],
)
def test_whoever_says_otherwise_is_listened_to(run_python, run, environment, devices):
    found, said = json.loads(run_python(DEVICES.replace("FIELDS", run), JAX_PLATFORMS="cpu", **environment))
    assert found == devices
    assert (said is not None) == (run == "batch=5")


def test_there_is_a_core():
    assert physical_cores() >= 1
