"""The state that a run starts from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_training import PICO

from samjax.sharding import make_mesh


@pytest.fixture(scope="module")
def config():
    from samjax.train.config import OptimConfig, TrainConfig

    return TrainConfig(optim=OptimConfig(ema=0.9, anchor=2.0))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def params(config, mesh):
    from samjax.train.state import fresh_params

    return fresh_params(config, PICO, mesh)


def test_the_first_state_is_what_the_abstract_one_announces(config, mesh, params):
    """Checkpoints are restored onto the abstract state, and the step is compiled for it."""
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state, init_state
    from samjax.train.trainable import make_trainable

    optimizer = make_optimizer(config.optim, PICO, config.run.steps)
    state = init_state(config, PICO, params, optimizer, mesh)
    announced = abstract_state(config, PICO, optimizer, mesh)
    assert jax.tree.structure(state) == jax.tree.structure(announced)
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(announced), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (expected.shape, expected.dtype, expected.sharding)
    assert state.step == 0
    trained, frozen = make_trainable(config, PICO).split(params)
    for ours, expected in ((state.params, trained), (state.ema, trained), (state.frozen, frozen)):
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_the_start_that_an_anchor_pulls_to_is_kept_in_checkpoints(config, mesh, params, tmp_path):
    """And not what a resumed run begins with."""
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.optim import AnchorState, make_optimizer
    from samjax.train.state import abstract_state, init_state

    def start_of(state):
        found = jax.tree.leaves(state.opt_state, is_leaf=lambda node: isinstance(node, AnchorState))
        return next(node.start for node in found if isinstance(node, AnchorState))

    optimizer = make_optimizer(config.optim, PICO, config.run.steps)
    state = init_state(config, PICO, params, optimizer, mesh)
    moved = dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, moved, {})
        restored, _ = checkpoints.restore(abstract_state(config, PICO, optimizer, mesh))
    jax.tree.map(np.testing.assert_array_equal, restored.params, moved.params)
    jax.tree.map(np.testing.assert_array_equal, start_of(restored), state.params)
    spread = make_mesh(fsdp=-1, data=1)
    announced = abstract_state(config, PICO, optimizer, spread)
    jax.tree.map(lambda a, b: assert_equal(a.sharding, b.sharding), start_of(announced), announced.params)


def assert_equal(first, second):
    assert first == second


def test_exports_hold_what_was_trained_merged_into_the_network(config, params, monkeypatch):
    """With a trainable that is no selection of parameters: a shift of every neck kernel, under a name of its own."""
    from samjax.train import state

    class Shift:
        def split(self, params):
            return {"shift": jnp.zeros(())}, params

        def merge(self, frozen, trained):
            encoder = frozen["image_encoder"]
            kernel = encoder["neck"]["0"]["kernel"] + trained["shift"]
            neck = {**encoder["neck"], "0": {"kernel": kernel}}
            return {**frozen, "image_encoder": {**encoder, "neck": neck}}

    monkeypatch.setattr(state, "make_trainable", lambda *_: Shift())
    exported = state.network_params(config, PICO, {**params, "shift": np.float32(2.0)})
    moved = jax.tree.map(lambda new, old: np.asarray(new - old).max(), exported, params)
    assert moved["image_encoder"]["neck"]["0"]["kernel"] == pytest.approx(2.0)
    assert sum(jax.tree.leaves(moved)) == pytest.approx(2.0)
    assert "shift" not in exported


def test_the_average_forgets_the_start_soon():
    from samjax.train.state import ema_decay

    decays = [float(ema_decay(0.99, np.array(step, np.int32))) for step in (0, 8, 90, 10_000)]
    np.testing.assert_allclose(decays, [0.1, 0.5, 0.91, 0.99], rtol=1e-6)


def test_aligned_attention_starts_with_equal_queries_and_keys(params):
    from samjax.train.state import align_attention

    aligned = align_attention(params)
    transformer = aligned["mask_decoder"]["transformer"]
    crossing = ("cross_attn_token_to_image", "cross_attn_image_to_token")
    attentions = [transformer["final_attn_token_to_image"], *(transformer["layers"]["0"][name] for name in crossing)]
    for attention in attentions:
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(attention["q_proj"][name], attention["k_proj"][name])
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, aligned)
    changed = [path for path, equal in jax.tree_util.tree_leaves_with_path(same) if not equal]
    assert all(path[-2].key == "k_proj" and "self_attn" not in str(path) for path in changed)
    assert len(changed) == 3  # kernels; biases start at zero
