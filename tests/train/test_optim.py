"""Schedules, groups and AdamW against closed forms and against PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.config import VARIANTS
from samjax.model import abstract_params

MATRIX = "prompt_encoder/pe_layer/positional_encoding_gaussian_matrix"


def config(**options):
    from samjax.train.config import OptimConfig

    return OptimConfig(**{"schedule": "constant", "warmup_steps": 0, "learning_rate": 1e-2, **options})


def optimizer(steps=100, **options):
    from samjax.train.optim import make_optimizer

    return make_optimizer(config(**options), SMALL, steps)


def schedule(steps, **options):
    from samjax.train.optim import make_schedule

    return at_steps(make_schedule(config(learning_rate=0.5, **options), steps))


def at_steps(rate):
    """The rates at some steps, asked for as a step does: on a device's integer, with the promotion that optax needs."""

    def at(step):
        with jax.numpy_dtype_promotion("standard"):
            return rate(jnp.int32(step))

    return at


def flat(tree):
    return {name: np.asarray(leaf, np.float64) for name, leaf in flatten_dict(tree, sep="/").items()}


# Schedules


def constant(t):
    return 1.0


def cosine(t):
    return 0.1 + 0.9 * (1 + math.cos(math.pi * min(t, 1))) / 2


def poly(t):
    return 0.1 + 0.9 * (1 - min(t, 1)) ** 0.7


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("kind", [constant, cosine, poly])
def test_schedules_are_their_closed_forms_after_a_linear_warm_up(kind, warmup):
    rate = schedule(120, schedule=kind.__name__, warmup_steps=warmup, final_rate=0.1, power=0.7)
    for step in (0, 1, 10, 19, 20, 21, 70, 119, 120, 500):
        expected = step / warmup if step < warmup else kind((step - warmup) / (120 - warmup))
        np.testing.assert_allclose(rate(step), 0.5 * expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("warmup", [0, 20])
def test_steps_fall_by_the_factor_at_shares_of_the_whole_run(warmup):
    rate = schedule(120, schedule="steps", warmup_steps=warmup, milestones=(0.5, 0.75), milestone_factor=0.2)
    expected = {20: 1, 59: 1, 61: 0.2, 89: 0.2, 91: 0.04, 500: 0.04}
    if warmup:
        expected |= {0: 0, 5: 0.25}
    for step, factor in expected.items():
        np.testing.assert_allclose(rate(step), 0.5 * factor, rtol=1e-5)


def test_the_papers_schedule_falls_at_60000_and_86666():
    from samjax.train.config import OptimConfig
    from samjax.train.optim import make_schedule

    rate = at_steps(make_schedule(OptimConfig(), 90_000))
    expected = {0: 0, 125: 4e-4, 250: 8e-4, 59_999: 8e-4, 60_001: 8e-5, 86_665: 8e-5, 86_667: 8e-6, 89_999: 8e-6}
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-5)


@pytest.mark.parametrize("kind", ["steps", "cosine", "poly"])
def test_a_run_may_end_within_its_warm_up(kind):
    rate = schedule(10, schedule=kind, warmup_steps=20)
    np.testing.assert_allclose(rate(9), 0.5 * 9 / 20, rtol=1e-5)


# Rates by layer


def paper_factor(name, decay, depth):
    """training.md: lr·d^(L+1−id), embeddings id 0, block i id i+1, everything outside the encoder ×1."""
    part, *rest = name.split("/")
    if part != "image_encoder":
        return 1.0
    if rest[0] in ("patch_embed", "pos_embed"):
        return decay ** (depth + 1)
    if rest[0] == "blocks":
        return decay ** (depth + 1 - (int(rest[1]) + 1))
    assert rest[0] == "neck"
    return 1.0


def test_every_parameter_of_vit_b_has_the_rate_of_its_layer():
    from samjax.train.optim import learning_rate_factor

    names = list(flatten_dict(abstract_params(VARIANTS["vit_b"]), sep="/"))
    factors = {name: learning_rate_factor(config(layer_decay=0.6), VARIANTS["vit_b"], name) for name in names}
    assert factors == pytest.approx({name: paper_factor(name, 0.6, 12) for name in names})
    assert factors["image_encoder/pos_embed"] == pytest.approx(0.6**13)
    assert factors["image_encoder/blocks/0/norm1/scale"] == pytest.approx(0.6**12)
    assert factors["image_encoder/blocks/11/mlp/lin1/kernel"] == pytest.approx(0.6)


def test_the_encoders_own_rate_comes_on_top():
    from samjax.train.optim import learning_rate_factor

    options = config(layer_decay=0.5, encoder_rate=0.6)
    for name, factor in {
        "image_encoder/neck/0/kernel": 0.6,
        "image_encoder/blocks/11/attn/qkv/bias": 0.3,
        "mask_decoder/iou_token/embedding": 1.0,
    }.items():
        assert learning_rate_factor(options, VARIANTS["vit_b"], name) == pytest.approx(factor)


# Steps


def gradients(seed=3):
    return jax.tree.map(jnp.asarray, random_params(SMALL, seed))


def params():
    return jax.tree.map(jnp.asarray, random_params(SMALL, 1))


def trained(steps=3, **options):
    """All parameters after a few updates of what is trained by arbitrary gradients."""
    from samjax.train.trainable import Patterns

    what, ours = Patterns(), optimizer(**options)
    with jax.numpy_dtype_promotion("standard"):
        update = jax.jit(ours.update)
        now, still = what.split(params())
        state = ours.init(now)
        for step in range(steps):
            updates, state = update(what.split(gradients(step))[0], state, now)
            now = optax.apply_updates(now, updates)
    return flat(what.merge(still, now)), state


def adamw(start, all_gradients, rate, decay, betas=(0.9, 0.999)):
    """Loshchilov & Hutter (2019), in float64."""
    first, second, now = 0.0, 0.0, start
    for step, gradient in enumerate(all_gradients, 1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        adam = first / (1 - betas[0] ** step) / (np.sqrt(second / (1 - betas[1] ** step)) + 1e-8)
        now = now - rate * (adam + decay * now)
    return now


NO_DECAY = (r"bias$", r"scale$", r"pos_embed$")


def grouped(name):
    """Rate and weight decay of a parameter for layer decay 0.8, weight decay 0.1, rate 1e-2."""
    without = name.endswith(("bias", "scale", "pos_embed"))
    return 1e-2 * paper_factor(name, 0.8, SMALL.image_encoder.depth), 0.0 if without else 0.1


def test_three_steps_are_those_of_adamw_in_float64_with_rates_and_decay_by_group():
    ours, _ = trained(layer_decay=0.8, weight_decay=0.1, no_decay=NO_DECAY)
    start, steps = flat(params()), [flat(gradients(step)) for step in range(3)]
    for name, value in ours.items():
        expected = adamw(start[name], [step[name] for step in steps], *grouped(name))
        if name == MATRIX:
            expected = start[name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-6, err_msg=name)


def test_the_anchor_pulls_towards_the_start_as_its_closed_form_says():
    """Under a gradient that stays the same Adam's steps have the size of the rate r, in the gradient's direction s.
    With the pull a the distance after t steps is d = -s/a · (1 - (1 - r·a)^t): never more than 1/a."""
    pull, steps = 20.0, 40
    ours = optimizer(anchor=pull, weight_decay=0.0, layer_decay=0.8, learning_rate=1e-2)
    some = ("image_encoder/pos_embed", "image_encoder/blocks/1/norm1/scale", "mask_decoder/iou_token/embedding")
    gradient, start = (
        unflatten_dict({name: flatten_dict(tree, sep="/")[name] for name in some}, sep="/")
        for tree in (gradients(), params())
    )
    with jax.numpy_dtype_promotion("standard"):
        update, now = jax.jit(ours.update), start
        state = ours.init(now)
        for _ in range(steps):
            updates, state = update(gradient, state, now)
            now = optax.apply_updates(now, updates)
    before, signs = flat(start), flat(gradient)
    for name, value in flat(now).items():
        rate = 1e-2 * paper_factor(name, 0.8, SMALL.image_encoder.depth)
        distance = -np.sign(signs[name]) / pull * (1 - (1 - rate * pull) ** steps)
        far = np.abs(signs[name]) > 1e-4  # where Adam's epsilon does not count
        np.testing.assert_allclose((value - before[name])[far], distance[far], rtol=2e-3, atol=2e-6, err_msg=name)


def test_what_starts_at_zero_decays_by_the_anchor_as_by_weight_decay():
    tree = {"mask_decoder": {"addition": jnp.zeros(5)}}
    gradient = {"mask_decoder": {"addition": jnp.linspace(-1.0, 1.0, 5)}}

    def moved(**options):
        ours, now = optimizer(**options), tree
        state = ours.init(now)
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(5):
                updates, state = ours.update(gradient, state, now)
                now = optax.apply_updates(now, updates)
        return flat(now)["mask_decoder/addition"]

    anchored = moved(anchor=10.0, weight_decay=0.0)
    np.testing.assert_allclose(anchored, moved(weight_decay=10.0), rtol=1e-6)
    assert (np.abs(anchored)[:2] < np.abs(moved(weight_decay=0.0))[:2]).all()


def test_without_an_anchor_the_state_is_as_it_was():
    """The names in checkpoints of 0.1, and no copy of the parameters."""
    from samjax.train.trainable import Patterns

    def names(**options):
        state = jax.eval_shape(optimizer(**options).init, Patterns().split(params())[0])
        return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves_of(state)]

    leaves_of = jax.tree_util.tree_leaves_with_path
    trained = len(jax.tree.leaves(Patterns().split(params())[0]))
    plain, anchored = names(), names(anchor=1.0)
    assert not any("start" in name for name in plain)
    assert len([name for name in anchored if "/start/" in name]) == trained == len(anchored) - len(plain)


def muon(start, all_gradients, rate, decay):
    """Jordan et al. (2024) with Nesterov's momentum, scaled as by Liu et al. (arXiv 2502.16982), in float64."""
    momentum, now = 0.0, start
    for step, gradient in enumerate(all_gradients, 1):
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.95 * momentum / (1 - 0.95 ** (step + 1)) + 0.05 * gradient / (1 - 0.95**step)
        x = ahead / np.linalg.norm(ahead)
        x = x.T if x.shape[0] > x.shape[1] else x
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        x = x.T if gradient.shape[0] > gradient.shape[1] else x
        now = now - rate * (0.2 * np.sqrt(max(x.shape)) * x + decay * now)
    return now


def test_muon_moves_the_matrices_of_attention_and_mlps_and_adamw_the_rest():
    options = {"layer_decay": 0.8, "weight_decay": 0.1, "no_decay": NO_DECAY, "learning_rate": 1e-2}
    ours, _ = trained(optimizer="muon", **options)
    start, steps = flat(params()), [flat(gradients(step)) for step in range(3)]
    matrices = [name for name in ours if name.endswith("kernel") and ("/blocks/" in name or "/transformer/" in name)]
    assert len(matrices) == 4 * SMALL.image_encoder.depth + 4 * 7 + 2 * 2
    for name, value in ours.items():
        rule = muon if name in matrices else adamw
        expected = start[name] if name == MATRIX else rule(start[name], [step[name] for step in steps], *grouped(name))
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parity
def test_three_steps_are_those_of_pytorch():
    import torch

    ours, _ = trained(layer_decay=0.8, weight_decay=0.1, no_decay=NO_DECAY)
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in flat(params()).items() if name != MATRIX}
    groups = []
    for name, parameter in theirs.items():
        rate, decay = grouped(name)
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for step in range(3):
        gradient = flat(gradients(step))
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradient[name])
        reference.step()
    for name, parameter in theirs.items():
        np.testing.assert_allclose(ours[name], parameter.detach().numpy(), rtol=1e-5, atol=2e-6, err_msg=name)


def test_the_gradient_is_clipped_by_its_norm():
    from samjax.train.trainable import Patterns

    ours = optimizer(clip_norm=0.5, betas=(0.0, 0.0))
    gradient, now = (Patterns().split(tree)[0] for tree in (gradients(), params()))
    with jax.numpy_dtype_promotion("standard"):
        _, state = jax.jit(ours.update)(gradient, ours.init(now), now)
    # Without memory the first moment is the gradient itself, as it came out of the clipping.
    (adam,) = [x for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")]
    norm = np.sqrt(sum((x**2).sum() for x in flat(gradient).values()))
    for name, clipped in flat(adam.mu).items():
        np.testing.assert_allclose(clipped, flat(gradient)[name] * 0.5 / norm, rtol=1e-4, atol=1e-9)


def test_small_gradients_are_not_clipped():
    calm, clipped = (trained(steps=2, clip_norm=norm)[0] for norm in (None, 1e9))
    for name, value in calm.items():
        np.testing.assert_allclose(clipped[name], value, rtol=1e-6, atol=1e-7)


def test_names_of_this_test_are_those_of_the_model():
    names = flatten_dict(abstract_params(SMALL), sep="/")
    assert MATRIX in names
    assert jax.tree.structure(unflatten_dict(names, sep="/")) == jax.tree.structure(abstract_params(SMALL))
