"""Checkpoints of a run: exact, complete or absent, on any mesh, and loud when they cannot be written."""

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samjax.checkpoint import CheckpointError

LATEST = {"position": 7, "order": [3, 1, 2]}


def small_state(value: float = 0.0, *, ema: bool = True, width: int = 24):
    from samjax.train.state import TrainState

    random = np.random.default_rng(0)
    params = {
        "encoder": {"kernel": jnp.asarray(random.normal(size=(16, width)) + value, jnp.float32)},
        "decoder": {"0": {"bias": jnp.asarray(random.normal(size=width) + value, jnp.float32)}},
    }
    some = optax.masked(optax.adamw(1e-3), {"encoder": True, "decoder": False})
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), some)
    return TrainState(
        step=jnp.int32(value),
        params=params,
        opt_state=jax.tree.map(lambda x: x + 1, optimiser.init(params)),
        ema=jax.tree.map(lambda x: 2 * x, params) if ema else None,
        key=jax.random.key_data(jax.random.key(5)),
    )


def abstract(state):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def open_checkpoints(tmp_path):
    """Opens the checkpoints of one folder; closes what is left open."""
    from samjax.train.checkpoints import Checkpoints

    opened = []

    def open_(**options):
        opened.append(Checkpoints(tmp_path / "run", **options))
        return opened[-1]

    yield open_
    for checkpoints in opened:
        checkpoints.close()


def test_what_is_saved_is_restored_bit_for_bit_with_the_data_state(open_checkpoints):
    state = small_state(3)
    checkpoints = open_checkpoints()
    assert checkpoints.save(3, state, LATEST, {"iou": 0.5})
    checkpoints.close()
    again = open_checkpoints()
    restored, data_state = again.restore(abstract(state))
    assert_identical(restored, state)
    assert data_state == LATEST
    assert (again.latest(), again.best(), again.metrics(3)) == (3, 3, {"iou": 0.5})


def test_the_state_may_be_donated_as_soon_as_save_returns(open_checkpoints):
    state = small_state(1)
    expected = jax.tree.map(np.array, state)
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state), donate_argnums=0)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, None)
    for _ in range(20):
        state = step(state)
    restored, _ = checkpoints.restore(abstract(expected))
    assert_identical(jax.tree.map(np.asarray, restored), expected)


def test_the_last_ones_and_the_best_one_are_kept(open_checkpoints):
    checkpoints = open_checkpoints(keep_last=2)
    scores = {1: 0.1, 2: 0.9, 3: float("nan"), 4: 0.3, 5: None, 6: 0.2}
    for step, score in scores.items():
        checkpoints.save(step, small_state(step, ema=False), step, None if score is None else {"iou": score})
    checkpoints.close()
    again = open_checkpoints(keep_last=2)
    assert (again.steps(), again.latest(), again.best()) == ([2, 5, 6], 6, 2)
    restored, data_state = again.restore(abstract(small_state(ema=False)), step=2)
    assert (int(restored.step), data_state) == (2, 2)


def test_without_metrics_there_is_no_best_one(open_checkpoints):
    checkpoints = open_checkpoints(keep_last=1)
    for step in (1, 2, 3):
        checkpoints.save(step, small_state(step), None)
    checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best()) == ([3], None)


def test_a_step_is_saved_once(open_checkpoints):
    checkpoints = open_checkpoints()
    assert checkpoints.save(1, small_state(1), "first")
    assert not checkpoints.save(1, small_state(2), "second")
    assert checkpoints.restore(abstract(small_state()))[1] == "first"


@pytest.mark.parametrize("raw", [False, True])
def test_weights_alone_are_the_average_unless_the_raw_ones_are_asked_for(open_checkpoints, raw):
    state = small_state(1)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, None)
    weights = checkpoints.weights(raw=raw)
    assert_identical(weights, jax.tree.map(np.asarray, state.params if raw else state.ema))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(weights))


def test_weights_of_a_run_without_an_average_are_the_parameters(open_checkpoints):
    state = small_state(1, ema=False)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, None)
    assert_identical(checkpoints.weights(), jax.tree.map(np.asarray, state.params))


def test_frozen_parameters_are_kept_with_the_others(open_checkpoints):
    state = small_state(1)
    frozen = {"encoder": {"frozen": jnp.arange(3.0)}}
    state = dataclasses.replace(state, frozen=frozen)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, None)
    restored, _ = checkpoints.restore(abstract(dataclasses.replace(small_state(), frozen=frozen)))
    assert_identical(restored, state)
    averaged, raw = checkpoints.weights(), checkpoints.weights(raw=True)
    np.testing.assert_array_equal(averaged["encoder"]["frozen"], frozen["encoder"]["frozen"])
    np.testing.assert_array_equal(averaged["encoder"]["kernel"], state.ema["encoder"]["kernel"])
    np.testing.assert_array_equal(raw["encoder"]["kernel"], state.params["encoder"]["kernel"])


# Of runs begun with 0.1: how many arrays an item has, and a digest of their names and shapes.
NAMES_OF_0_1 = {
    ("adamw", "params"): (124, "cfb4251cb2adc9e4"),
    ("adamw", "optimiser"): (250, "3675ea06a89486e8"),
    ("adamw, frozen encoder", "optimiser"): (204, "efabe824ba898de9"),
    ("muon", "optimiser"): (230, "7fd37dd1f2f284f6"),
    ("muon, frozen encoder", "optimiser"): (188, "250b005eeb190964"),
}


@pytest.mark.parametrize(("recipe", "item"), NAMES_OF_0_1)
def test_arrays_have_the_names_and_shapes_that_they_had_in_0_1(recipe, item):
    from example_training import PICO

    from samjax.sharding import make_mesh
    from samjax.train.checkpoints import _items
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state

    optimiser, _, frozen = recipe.partition(", ")
    patterns = (r"^image_encoder/",) if frozen else ()
    config = TrainConfig(optim=OptimConfig(optimizer=optimiser, frozen=patterns, ema=0.9, clip_norm=1.0))
    optimizer, mesh = make_optimizer(config.optim, PICO, 10), make_mesh(devices=jax.devices()[:1])
    leaves = _items(abstract_state(config, PICO, optimizer, mesh))[item]
    lines = sorted(f"{name} {tuple(leaf.shape)}" for name, leaf in leaves.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (len(lines), digest) == NAMES_OF_0_1[recipe, item]


@pytest.mark.parametrize("frozen", [(), (r"^image_encoder/",)])
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_checkpoint_of_0_1_is_resumed(open_checkpoints, frozen, optimiser):
    """Its state had all parameters in one tree, averaged them all, and hid the frozen ones from the optimiser."""
    from example_models import random_params
    from example_training import PICO

    from samjax.sharding import make_mesh
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.optim import make_optimizer, optax_numerics
    from samjax.train.state import TrainState, abstract_state
    from samjax.train.trainable import make_trainable

    config = TrainConfig(optim=OptimConfig(optimizer=optimiser, frozen=frozen, ema=0.9, clip_norm=1.0))
    params = jax.tree.map(jnp.asarray, random_params(PICO, 1))
    average = jax.tree.map(lambda leaf: 2 * leaf, params)
    ours, trainable = make_optimizer(config.optim, PICO, 10), make_trainable(config, PICO)
    is_trained = {path for path, _ in jax.tree_util.tree_leaves_with_path(trainable.split(params)[0])}
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path in is_trained, params)
    steps = ours.init(trainable.split(params)[0])[0].inner_state
    with optax_numerics():
        hidden = optax.masked(optax.set_to_zero(), jax.tree.map(lambda flag: not flag, mask)).init(params)
    number = iter(range(10**6))
    moments = jax.tree.map(lambda leaf: jnp.full_like(leaf, next(number)), steps)
    opt_state = (optax.MaskedState(moments), hidden)
    key = jax.random.key_data(jax.random.key(5))
    checkpoints = open_checkpoints()
    checkpoints.save(7, TrainState(jnp.int32(7), params, opt_state, average, key), "data")

    wanted = abstract_state(config, PICO, ours, make_mesh(devices=jax.devices()[:1]))
    restored, _ = checkpoints.restore(wanted)
    trained, still = trainable.split(params)
    for found, expected in (
        (restored.params, trained),
        (restored.frozen, still),
        (restored.ema, trainable.split(average)[0]),
        (restored.opt_state[0].inner_state, moments),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_structure_is_refused_by_name(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(1, small_state(1, ema=False), None)
    with pytest.raises(CheckpointError, match=r"missing \(2\):\n    ema/decoder/0/bias"):
        checkpoints.restore(abstract(small_state()))
    with pytest.raises(CheckpointError, match=r"params/encoder/kernel: expected \(16, 8\), found \(16, 24\)"):
        checkpoints.restore(abstract(small_state(ema=False, width=8)))


def test_what_is_not_there_is_said(open_checkpoints):
    checkpoints = open_checkpoints()
    assert checkpoints.latest() is None
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoints.restore(abstract(small_state()))
    checkpoints.save(4, small_state(4), None)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3 .* there are \[4\]"):
        checkpoints.restore(abstract(small_state()), step=3)


def test_a_damaged_checkpoint_is_said_to_be_one(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    checkpoints.save(1, small_state(1), None)
    checkpoints.wait()
    for file in (tmp_path / "run" / "1" / "params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(CheckpointError, match="1 cannot be read, it is damaged"):
        checkpoints.restore(abstract(small_state()))


def test_a_folder_that_cannot_be_written_stops_before_anything_is_computed(tmp_path):
    from samjax.train.checkpoints import Checkpoints, check_room

    (tmp_path / "file").write_text("in the way")
    for start in (lambda path: check_room(path, abstract(small_state()), 2, True), Checkpoints):
        with pytest.raises(OSError, match="cannot be written into"):
            start(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "there", "needed"),
    [
        (2, True, [], 4),
        (2, False, [], 3),
        (1, False, [], 2),
        (2, True, ["10", "20"], 2),
        (1, False, ["1", "2", "3"], 1),
    ],
)
def test_a_disk_without_room_stops_before_anything_is_computed(
    tmp_path, monkeypatch, keep_last, keep_best, there, needed
):
    """Needed are those that are kept and the one being written, without those that are there."""
    import collections

    from samjax.train import checkpoints

    state = abstract(small_state())
    size = checkpoints.state_bytes(state)
    assert size == sum(leaf.nbytes for leaf in jax.tree.leaves(small_state()))
    for name in (*there, "30.orbax-checkpoint-tmp-1"):  # what a killed process has left is removed, and no checkpoint
        (tmp_path / "run" / name).mkdir(parents=True)
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage(needed * size))
    checkpoints.check_room(tmp_path / "run", state, keep_last, keep_best)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage(needed * size - 1))
    with pytest.raises(OSError, match="make room, choose another folder"):
        checkpoints.check_room(tmp_path / "run", state, keep_last, keep_best)


SETUP = """
import sys, time
sys.path.insert(0, "tests/train")
import jax, jax.numpy as jnp, numpy as np
from test_checkpoints import abstract, small_state
from samjax.train.checkpoints import Checkpoints
"""

FULL = """
import resource
checkpoints = Checkpoints(FOLDER)
checkpoints.save(1, small_state(1), None)
checkpoints.wait()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # what a full disk is to whoever writes
try:
    checkpoints.save(2, small_state(2), None)
    for _ in range(1000):
        checkpoints.check()
        time.sleep(0.02)
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(checkpoints.steps(), int(checkpoints.restore(abstract(small_state()))[0].step))
checkpoints.save(3, small_state(3), None)
checkpoints.close()
again = Checkpoints(FOLDER)
print(again.steps(), int(again.restore(abstract(small_state()))[0].step))
"""


def test_a_save_that_fails_in_the_background_is_raised_and_leaves_the_last_one(run_python, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    error, kept, later = run_python(f"{SETUP}FOLDER = {str(tmp_path / 'run')!r}\n{FULL}").splitlines()
    assert re.match(r"a checkpoint could not be written to .* can be resumed from step 1", error)
    assert (kept, later) == ("[1] 1", "[1, 3] 3")


ENDLESS = """
checkpoints = Checkpoints(FOLDER, keep_last=2)
big = {str(i): np.zeros((64, 1024), np.float32) for i in range(24)}
state = small_state(ema=False)
for step in range(1, 1000):
    object.__setattr__(state, "params", {name: array + np.float32(step) for name, array in big.items()})
    object.__setattr__(state, "step", jnp.int32(step))
    checkpoints.save(step, state, {"step": step})
    print(step, flush=True)
"""


def test_a_save_that_is_killed_is_never_restored(root, tmp_path):
    """Three processes that do nothing but save are killed at different moments of their saves."""
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.state import TrainState

    processes = []
    for number in range(3):
        code = f"{SETUP}FOLDER = {str(tmp_path / str(number))!r}\n{ENDLESS}"
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        )
    begun = []
    for number, process in enumerate(processes):
        begun.append([int(process.stdout.readline()) for _ in range(3)][-1])
        time.sleep(0.04 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
    interrupted = 0
    for number, step in enumerate(begun):
        folder = tmp_path / str(number)
        interrupted += len([entry for entry in folder.iterdir() if not entry.name.isdigit()])
        with Checkpoints(folder) as checkpoints:
            latest = checkpoints.latest()
            assert latest >= step - 1  # the one before was complete when this one began
            like = small_state(ema=False)
            params = {str(i): jnp.zeros((64, 1024)) for i in range(24)}
            like = abstract(TrainState(like.step, params, like.opt_state, None, like.key))
            restored, data_state = checkpoints.restore(like)
        assert data_state == {"step": latest}
        assert int(restored.step) == latest
        for leaf in jax.tree.leaves(restored.params):
            np.testing.assert_array_equal(leaf, np.full((64, 1024), latest, np.float32))
        assert all(entry.name.isdigit() for entry in folder.iterdir())
    assert interrupted  # otherwise no save was interrupted and nothing is shown


MESHES = """
from jax.sharding import NamedSharding, PartitionSpec as P
devices = jax.devices()[:COUNT]
mesh = jax.sharding.Mesh(np.array(devices).reshape(-1, 1 if COUNT < 4 else 2), ("fsdp", "tensor"))
def place(x):
    spec = P(*["fsdp", "tensor"][:x.ndim]) if x.ndim and all(n % 8 == 0 for n in x.shape) else P()
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
state = small_state(9)
wanted = jax.tree.map(place, state)
with Checkpoints(FOLDER, keep_last=9) as checkpoints:
    if COUNT < 8:
        restored, data_state = checkpoints.restore(wanted)
        assert data_state == {"devices": 2 * COUNT if COUNT == 4 else 4}, data_state
        for ours, original, placed in zip(*map(jax.tree.leaves, (restored, state, wanted)), strict=True):
            np.testing.assert_array_equal(ours, original)
            assert ours.sharding == placed.sharding
        state = restored
    else:
        state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, wanted)
    kernel = state.params["encoder"]["kernel"]
    print(len(kernel.addressable_shards), kernel.addressable_shards[0].data.shape)
    checkpoints.save(100 - COUNT, state, {"devices": COUNT})
"""


def test_a_checkpoint_goes_from_eight_devices_to_four_to_one(run_python, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    shards = [
        run_python(
            f"COUNT, FOLDER = {count}, {str(tmp_path / 'run')!r}\n{SETUP}{MESHES}",
            XLA_FLAGS=os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
            JAX_PLATFORMS="cpu",
        ).strip()
        for count in (8, 4, 1)
    ]
    assert shards == ["8 (4, 12)", "4 (8, 12)", "1 (16, 24)"]
