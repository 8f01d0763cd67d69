"""What padding, empty images and parts of a batch do to the losses; `tests/parity` has their values."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.train.tasks.instances.losses import (
    Answers,
    LossCounts,
    Objects,
    SetLossConfig,
    loss_counts,
    loss_sums,
    total,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = SetLossConfig(points=30)
CLASSES, QUERIES, SLOTS = 3, 4, 6


@pytest.fixture(scope="module")
def given():
    """Two images: one with more objects than queries, one with two."""
    random = np.random.RandomState(0)
    answers = Answers(
        random.standard_normal((2, 2, QUERIES, CLASSES + 1)).astype(np.float32),
        random.standard_normal((2, 2, QUERIES, 5, 5)).astype(np.float32),
    )
    classes = random.randint(0, CLASSES, (2, SLOTS)).astype(np.int32)
    masks = random.random_sample((2, SLOTS, 8, 8)).astype(np.float32)
    valid = np.array([[True] * 5 + [False], [False, True, False, False, True, False]])
    return answers, Objects(classes, masks, valid), jax.random.split(jax.random.key(0), 2)


@jax.jit
def value_and_gradient(answers, objects, keys):
    def loss(answers):
        sums = loss_sums(CONFIG, answers, objects, keys)
        return total(CONFIG, sums, loss_counts(CONFIG, objects.valid, QUERIES)), sums

    return jax.value_and_grad(loss, has_aux=True)(answers)


def test_what_stands_in_an_empty_slot_changes_neither_loss_nor_gradient(given):
    answers, objects, keys = given
    other = objects._replace(
        classes=np.where(objects.valid, objects.classes, 99).astype(np.int32),
        masks=np.where(objects.valid[..., None, None], objects.masks, np.float32(np.nan)),
    )
    results = [value_and_gradient(answers, each, keys) for each in (objects, other)]
    assert np.isfinite(results[0][0][0])
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_an_image_without_objects_only_learns_that_there_is_nothing(given):
    answers, objects, keys = given
    empty = objects._replace(valid=np.zeros_like(objects.valid))
    (_, sums), gradient = value_and_gradient(answers, empty, keys)
    assert not np.any(sums.mask)
    assert not np.any(gradient.mask_logits)
    log_shares = jax.nn.log_softmax(answers.class_logits, -1)[..., -1]
    np.testing.assert_allclose(sums.classes, -0.1 * log_shares.sum((0, 2)), rtol=1e-5)


def test_an_image_s_losses_do_not_depend_on_the_batch(given):
    """Parts of a batch can be added: sums are sums, and what divides them is known before."""
    answers, objects, keys = given
    (_, whole), _ = value_and_gradient(answers, objects, keys)
    swapped = jax.tree.map(lambda x: x[::-1], (answers, objects))
    (_, other), _ = value_and_gradient(*swapped, keys[::-1])
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), whole, other)


def test_divisors_count_objects_and_weigh_queries(given):
    """Five objects for four queries and two: seven masks; four and two matched queries, two without an object."""
    counts = loss_counts(CONFIG, jnp.asarray(given[1].valid), QUERIES)
    np.testing.assert_allclose(counts, LossCounts(7, 4 + 2 + 0.1 * 2), rtol=1e-6)
    nothing = loss_counts(CONFIG, jnp.zeros((2, SLOTS), bool), QUERIES)
    np.testing.assert_allclose(nothing, LossCounts(1, 0.1 * 8), rtol=1e-6)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"importance in 0\.\.1"):
        SetLossConfig(importance=1.5)
    with pytest.raises(ValueError, match="no_object above 0"):
        SetLossConfig(no_object=0.0)


@pytest.mark.heavy
def test_on_four_devices_the_losses_are_the_same_and_no_search_waits(run_python):
    """XLA would ask all devices after each step of a search whether any goes on."""
    devices = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    print(run_python(FOUR_DEVICES, XLA_FLAGS=devices, JAX_PLATFORMS="cpu"))


FOUR_DEVICES = """
import re
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from samjax.train.tasks.instances.losses import Answers, Objects, SetLossConfig, loss_counts, loss_sums, total

config, random = SetLossConfig(points=30), np.random.RandomState(0)
answers = Answers(*(random.standard_normal(shape).astype(np.float32) for shape in ((4, 2, 6, 4), (4, 2, 6, 5, 5))))
valid = np.arange(5)[None] < np.array([5, 0, 2, 3])[:, None]
objects = Objects(random.randint(0, 3, (4, 5)).astype(np.int32), random.random_sample((4, 5, 8, 8)) > 0.5, valid)
given = answers, objects, jax.random.split(jax.random.key(0), 4)

def value_and_gradient(answers, objects, keys):
    def loss(answers):
        return total(config, loss_sums(config, answers, objects, keys), loss_counts(config, objects.valid, 6))
    return jax.value_and_grad(loss)(answers)

expected = jax.jit(value_and_gradient)(*given)
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.device_put(given, NamedSharding(mesh, P("data")))
with jax.set_mesh(mesh):
    compiled = jax.jit(value_and_gradient).lower(*spread).compile()
jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6), compiled(*spread), expected)
conditions = [part for part in compiled.as_text().split("\\n\\n") if re.search(r"-> pred\\[\\] {", part)]
assert conditions
assert not [part for part in conditions if re.search(r" (all-reduce|all-gather|collective-permute)", part)]
"""
