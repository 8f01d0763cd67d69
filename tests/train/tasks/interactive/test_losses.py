"""Losses against the same formulas in float64, and what must not reach them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SIDE = 8


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-abs(x))), np.exp(-abs(x)) / (1 + np.exp(-abs(x))))


def cross_entropy(logits, target):
    """The cross-entropy of each pixel, in float64."""
    return np.logaddexp(0, -logits) * target + np.logaddexp(0, logits) * (1 - target)


def focal(logits, target, inside, alpha=0.25, gamma=2.0):
    """Lin et al. (2017): alpha_t (1 - p_t)^gamma · cross-entropy, mean over the photo's pixels."""
    p = sigmoid(logits)
    certainty = p * target + (1 - p) * (1 - target)
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (weight * (1 - certainty) ** gamma * cross_entropy(logits, target))[inside].mean()


def dice(logits, target, inside):
    p = sigmoid(logits)[inside]
    g = target[inside]
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)


def balanced(logits, target, inside):
    entropy = cross_entropy(logits, target)
    return (entropy[inside & (target == 1)].mean() + entropy[inside & (target == 0)].mean()) / 2


def iou(logits, target, inside):
    mask, target = (logits > 0) & inside, target == 1
    return (mask & target).sum() / (mask | target).sum()


def ours(name):
    from samjax.train.tasks.interactive import losses

    names = {
        focal: losses.focal_loss,
        dice: losses.dice_loss,
        balanced: losses.balanced_cross_entropy,
        iou: losses.mask_iou,
    }
    return names[name]


def example(seed, scale=3.0):
    """Logits, a binary target in float64, and which pixels are not padding."""
    random = np.random.RandomState(seed)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[:7, :6] = True
    return scale * random.standard_normal((SIDE, SIDE)), (random.rand(SIDE, SIDE) < 0.3) * inside * 1.0, inside


def maps(target, inside):
    return jnp.asarray(target, jnp.float32), jnp.asarray(inside * (1 - target), jnp.float32)


@pytest.mark.parametrize("formula", [focal, dice, balanced, iou])
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_their_formulas_in_float64(formula, seed):
    logits, target, inside = example(seed)
    computed = ours(formula)(jnp.asarray(logits, jnp.float32), *maps(target, inside))
    np.testing.assert_allclose(computed, formula(logits, target, inside), rtol=1e-5)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5), (0.5, 0.0)])
def test_focal_weighs_foreground_by_alpha_and_certainty_by_gamma(alpha, gamma):
    from samjax.train.tasks.interactive.losses import focal_loss

    logits, target, inside = example(4)
    computed = focal_loss(jnp.asarray(logits, jnp.float32), *maps(target, inside), alpha, gamma)
    np.testing.assert_allclose(computed, focal(logits, target, inside, alpha, gamma), rtol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_focal_and_its_gradient_are_those_of_pytorch(seed):
    import torch
    from torch.nn import functional

    logits, target, _ = example(seed)
    ours_loss, ours_gradient = jax.value_and_grad(ours(focal))(
        jnp.asarray(logits, jnp.float32), *maps(target, np.ones_like(target, bool))
    )
    x, g = torch.tensor(logits, requires_grad=True), torch.tensor(target)
    p = torch.sigmoid(x)
    entropy = functional.binary_cross_entropy_with_logits(x, g, reduction="none")
    p_t = p * g + (1 - p) * (1 - g)
    loss = ((0.25 * g + 0.75 * (1 - g)) * (1 - p_t) ** 2 * entropy).mean()
    loss.backward()
    np.testing.assert_allclose(ours_loss, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(ours_gradient, x.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("formula", [focal, dice, balanced])
def test_gradients_are_the_finite_differences_of_the_float64_formulas(formula):
    logits, target, inside = example(5)
    gradient = jax.grad(ours(formula))(jnp.asarray(logits, jnp.float32), *maps(target, inside))
    differences = np.zeros_like(logits)
    for pixel in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[pixel] = 1e-5
        up, down = (formula(logits + sign * step, target, inside) for sign in (1, -1))
        differences[pixel] = (up - down) / 2e-5
    np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-6 * abs(differences).max() + 1e-7)
    assert abs(differences).max() > 1e-3
    assert (np.asarray(gradient)[~inside] == 0).all()


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("formula", [focal, dice, balanced, iou])
@pytest.mark.parametrize("pixels", [1, 7, 300])  # of the object: fewer than a cell has, and many
def test_shares_of_cells_give_the_losses_of_repeated_logits(formula, ratio, pixels):
    random = np.random.RandomState(pixels)
    logits = 3 * random.standard_normal((SIDE, SIDE))
    side = SIDE * ratio
    inside = np.zeros((side, side), bool)
    inside[: side - ratio - 1, : side - 1] = True  # photos end within cells
    target = np.zeros((side, side))
    candidates = np.argwhere(inside)
    target[tuple(candidates[random.permutation(len(candidates))[:pixels]].T)] = 1
    if pixels > len(candidates) / 2:
        target *= random.rand(side, side) < 0.5

    def shares(pixels):
        return jnp.asarray(pixels.reshape(SIDE, ratio, SIDE, ratio).mean((1, 3)), jnp.float32)

    computed = ours(formula)(jnp.asarray(logits, jnp.float32), shares(target), shares(inside * (1 - target)))
    repeated = logits.repeat(ratio, 0).repeat(ratio, 1)
    expected = formula(repeated, target, inside)
    if formula is dice:  # the 1 that smooths it is a logit: r x r pixels
        p, g = sigmoid(repeated)[inside], target[inside]
        expected = 1 - (2 * (p * g).sum() + ratio**2) / (p.sum() + g.sum() + ratio**2)
    np.testing.assert_allclose(computed, expected, rtol=2e-5)


@pytest.mark.parametrize("formula", [focal, dice, balanced, iou])
def test_logits_in_the_padding_change_nothing(formula):
    logits, target, inside = example(6)
    elsewhere = np.where(inside, logits, 1e3 * np.random.RandomState(0).standard_normal(logits.shape))
    there, here = (ours(formula)(jnp.asarray(x, jnp.float32), *maps(target, inside)) for x in (elsewhere, logits))
    assert there == here


@pytest.mark.parametrize("formula", [focal, dice, balanced, iou])
@pytest.mark.parametrize("object_side", [0, 3, SIDE])  # nothing, a part, all
def test_extreme_logits_have_finite_losses_and_gradients(formula, object_side):
    target = np.zeros((SIDE, SIDE))
    target[:object_side, :object_side] = 1
    for logits in (np.full((SIDE, SIDE), 1e4), np.full((SIDE, SIDE), -1e4), np.tile([1e4, -1e4], (SIDE, SIDE // 2))):
        loss, gradient = jax.value_and_grad(ours(formula))(
            jnp.asarray(logits, jnp.float32), *maps(target, np.ones_like(target, bool))
        )
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


def test_iou_without_object_and_mask_is_zero():
    nothing = jnp.zeros((SIDE, SIDE))
    assert ours(iou)(nothing - 1, nothing, nothing + 1) == 0


# The loss of a prompt


PREDICTED = jnp.array([0.9, 0.2, 0.4])


def three_masks(seed=7):
    """Three masks for one object, of which the second is the best by far and the first is thought to be."""
    _, target, inside = example(seed)
    noise = np.random.RandomState(seed).standard_normal((3, SIDE, SIDE))
    towards = np.array([-0.2, 3.0, 0.5])[:, None, None]
    return towards * (2 * target - 1) + noise, target, inside


@functools.cache
def loss_and_gradient(**options):
    from samjax.train.config import LossConfig
    from samjax.train.tasks.interactive.losses import mask_loss

    weight = options.pop("balanced_weight", 0.0)

    def total(logits, predicted, foreground, background, valid):
        loss = mask_loss(LossConfig(**options), logits, predicted, foreground, background, valid, weight)
        return loss.total, loss

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def of_three(valid=True, logits=None, predicted=PREDICTED, **options):
    ours_logits, target, inside = three_masks()
    logits = ours_logits if logits is None else logits
    arguments = jnp.asarray(logits, jnp.float32), predicted, *maps(target, inside), jnp.array(valid)
    (_, loss), gradient = loss_and_gradient(**options)(*arguments)
    return loss, gradient


def test_the_mask_with_the_lowest_mask_loss_alone_learns():
    logits, target, inside = three_masks()
    losses = [20 * focal(one, target, inside) + dice(one, target, inside) for one in logits]
    assert np.argmin(losses) == 1
    loss, (of_logits, of_predicted) = of_three()
    error = (0.2 - iou(logits[1], target, inside)) ** 2
    np.testing.assert_allclose(loss.total, losses[1] + error, rtol=1e-5)
    np.testing.assert_allclose(loss.focal, focal(logits[1], target, inside), rtol=1e-5)
    np.testing.assert_allclose(loss.dice, dice(logits[1], target, inside), rtol=1e-5)
    assert [bool(of_one.any()) for of_one in of_logits] == [False, True, False]
    assert [bool(of_one) for of_one in of_predicted] == [False, True, False]


def test_the_lowest_is_chosen_by_the_weighted_terms():
    _, target, inside = three_masks()
    wide = np.where(target == 1, 1.0, -0.3)  # many unsure background pixels: little focal, much dice
    sharp = np.where(target == 1, 6.0, -6.0)  # one object pixel wrong and certain: much focal, little dice
    sharp[tuple(np.argwhere(target == 1)[0])] = -25.0
    logits = np.stack([wide, sharp, -sharp])
    for weights in ({"focal": 20.0, "dice": 1.0}, {"focal": 0.1, "dice": 1.0}):
        losses = [weights["focal"] * focal(one, target, inside) + dice(one, target, inside) for one in logits]
        loss, _ = of_three(logits=logits, iou=0.0, **weights)
        np.testing.assert_allclose(loss.total, min(losses), rtol=1e-5)
        assert np.argmin(losses) == (0 if weights["focal"] == 20 else 1)


@pytest.mark.parametrize("iou_error", ["squared", "absolute"])
@pytest.mark.parametrize("iou_of", ["selected", "all"])
def test_the_iou_head_learns_from_the_selected_mask_or_from_all(iou_of, iou_error):
    logits, target, inside = three_masks()
    differences = np.array(PREDICTED) - [iou(one, target, inside) for one in logits]
    errors = differences**2 if iou_error == "squared" else abs(differences)
    slopes = 2 * differences if iou_error == "squared" else np.sign(differences)
    loss, (of_logits, of_predicted) = of_three(iou_of=iou_of, iou_error=iou_error)
    np.testing.assert_allclose(loss.iou_error, errors[1] if iou_of == "selected" else errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(of_predicted, slopes * [0, 1, 0] if iou_of == "selected" else slopes / 3, rtol=1e-4)
    assert [bool(of_one.any()) for of_one in of_logits] == [False, True, False]


def test_the_weight_of_the_iou_loss_is_configured():
    one, two = (of_three(iou=weight)[0] for weight in (1.0, 3.0))
    np.testing.assert_allclose(two.total - one.total, 2 * one.iou_error, rtol=1e-4)


def test_reported_are_the_iou_of_the_most_confident_and_of_the_best_mask():
    logits, target, inside = three_masks()
    loss, _ = of_three()
    ious = [iou(one, target, inside) for one in logits]
    np.testing.assert_allclose([loss.iou, loss.best_iou], [ious[0], max(ious)], rtol=1e-6)
    assert ious[0] < max(ious)


def test_the_balanced_term_has_its_own_weight():
    logits, target, inside = three_masks()
    plain, _ = of_three()
    assert plain.balanced == 0
    loss, _ = of_three(balanced=1.0, balanced_weight=0.5)
    np.testing.assert_allclose(loss.balanced, balanced(logits[1], target, inside), rtol=1e-5)
    np.testing.assert_allclose(loss.total - plain.total, 0.5 * loss.balanced, rtol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("iou_of", ["selected", "all"])
def test_what_stands_in_an_invalid_mask_reaches_no_loss_and_no_gradient(poison, iou_of):
    logits, _, _ = three_masks()
    logits[0, 3], logits[1] = poison, poison
    loss, gradients = of_three(
        valid=False, logits=logits, predicted=jnp.full(3, poison), iou_of=iou_of, balanced=1.0, balanced_weight=1.0
    )
    for leaf in jax.tree.leaves((loss, gradients)):
        assert (np.asarray(leaf) == 0).all()


def test_the_weight_of_the_balanced_loss_falls_linearly_to_zero():
    from samjax.train.config import LossConfig
    from samjax.train.tasks.interactive.losses import balanced_weight

    steps = jnp.array([0, 50, 100, 150, 200, 999])
    weights = [float(balanced_weight(LossConfig(balanced=0.5), 1000, step)) for step in steps]
    np.testing.assert_allclose(weights, [0.5, 0.375, 0.25, 0.125, 0, 0])  # 0.2 of 1000 steps
