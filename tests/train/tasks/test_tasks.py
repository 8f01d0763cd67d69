"""Another task than interactive segmentation: with parameters of its own, it uses a part of the network alone."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL
from example_training import PICO, nano_batch

from samjax.model import abstract_params
from samjax.sharding import make_mesh
from samjax.train.tasks import Task

CLASSES = 3


@dataclasses.dataclass(frozen=True, eq=False)
class ClassTask(Task):
    """The class of a mask from the features' mean over it, by a linear layer."""

    config: object
    sam: object
    mesh: object

    parts: ClassVar[tuple[str, ...]] = ("image_encoder",)

    @classmethod
    def new_params(cls, config, sam, key):
        return {"classes": {"kernel": jax.random.normal(key, (sam.width, CLASSES), jnp.float32)}}

    def count(self, batch):
        return (batch.valid & (batch.categories >= 0)).sum(dtype=jnp.int32)

    def loss(self, params, batch, key, position):
        from samjax.train.encoder import batch_features

        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(batch.position)
        features = batch_features(self.config, self.sam, self.mesh, params, batch, keys, None).image
        inside = (batch.cells != 0).reshape(*batch.cells.shape[:2], features.shape[1], 4, features.shape[2], 4)
        inside = inside.any((3, 5)).astype(jnp.float32)
        mean = jnp.einsum("bnhw,bhwc->bnc", inside, features) / jnp.maximum(inside.sum((2, 3)), 1)[..., None]
        scores = jax.nn.log_softmax(mean @ params["classes"]["kernel"])
        used = batch.valid & (batch.categories >= 0)
        losses = -jnp.take_along_axis(scores, jnp.maximum(batch.categories, 0)[..., None], -1)[..., 0]
        return jnp.where(used, losses, 0).sum(), {}


@pytest.fixture
def start(monkeypatch):
    """A recipe of this task, its optimiser, mesh and first state."""
    from samjax.train import loop, state, step, tasks
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.optim import make_optimizer
    from samjax.train.trainable import trainable

    for module in (state, tasks, trainable):
        monkeypatch.setattr(module, "task_type", lambda config: ClassTask)
    recipe = TrainConfig(
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=0, schedule="constant", no_decay=("^classes/",), ema=0.9)
    )
    mesh, optimizer = make_mesh(devices=jax.devices()[:1]), make_optimizer(recipe.optim, PICO, 100)
    params = state.with_new_params(recipe, PICO, loop.fresh_params(recipe, PICO, mesh), mesh)
    first = state.init_state(recipe, PICO, params, optimizer, mesh)
    return recipe, optimizer, mesh, first, step.make_step(recipe, PICO, optimizer, mesh)


@pytest.fixture
def batch():
    plain = nano_batch(4)
    classes = np.array([[0, 1], [2, -1], [1, 2], [-1, 0]], np.int32)
    return dataclasses.replace(plain, categories=classes)


def test_its_own_parameters_are_trained_with_the_part_that_it_uses(start, batch):
    *_, state, step = start
    assert set(state.params) == {"image_encoder", "classes"}
    assert set(state.frozen) == {"prompt_encoder", "mask_decoder"}
    before, losses = jax.device_get(state), []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        assert metrics["masks"] == 6  # those with a class
    assert losses[-1] < losses[0] / 2
    after = jax.device_get(state)
    assert not np.array_equal(after.params["classes"]["kernel"], before.params["classes"]["kernel"])
    assert not np.array_equal(after.ema["classes"]["kernel"], before.ema["classes"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)


def test_its_state_is_announced_kept_and_exported_without_what_is_not_sams(start, batch, tmp_path):
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.state import abstract_state, network_params

    recipe, optimizer, mesh, state, step = start
    state, _ = step(state, batch)
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, state, None)
        restored, _ = checkpoints.restore(abstract_state(recipe, PICO, optimizer, mesh))
        jax.tree.map(np.testing.assert_array_equal, restored, state)
        exported = network_params(recipe, PICO, checkpoints.weights())
    assert jax.tree.structure(exported) == jax.tree.structure(abstract_params(PICO))
    jax.tree.map(np.testing.assert_array_equal, exported["image_encoder"], state.ema["image_encoder"])
    jax.tree.map(np.testing.assert_array_equal, exported["mask_decoder"], state.frozen["mask_decoder"])


def test_the_interactive_task_adds_nothing():
    from samjax.train.config import TrainConfig
    from samjax.train.tasks import task_type

    task = task_type(TrainConfig())
    assert task.new_params(TrainConfig(), SMALL, jax.random.key(0)) == {}
    assert set(task.parts) == set(abstract_params(SMALL))
