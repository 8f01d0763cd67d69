"""Losses of a set of queries against a set of objects, matched one to one (Mask2Former, arXiv 2112.01527, section 3.3).

Each layer's answers are matched anew. Masks are compared at points only: random ones for the matching, uncertain ones
(`samjax.ops.uncertainty`) for the loss, so that a loss at full resolution needs no array of that size. Everything is
float32. One letter, one meaning: B images, L layers, Q queries, K classes with "no object" as the last, O slots for
objects, P points, h w the cells of mask logits, H W those of the objects' masks.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, Shaped

from samjax.ops.assignment import assign
from samjax.ops.batching import map_batch, mesh_of, on_every_device
from samjax.ops.costs import class_costs, dice_costs, mask_costs
from samjax.ops.points import sample_points
from samjax.ops.uncertainty import split_count, uncertain_points


@dataclasses.dataclass(frozen=True)
class SetLossConfig:
    """Weights of the terms, which are those of the matching as well, and numbers of points."""

    classes: float = 2.0  # of the cross-entropy of classes
    mask: float = 5.0  # of the binary cross-entropy of masks
    dice: float = 5.0
    no_object: float = 0.1  # of a query that has no object, within the cross-entropy of classes
    points: int = 12544  # of each mask: 112²
    oversample: float = 3.0  # candidates a point, of which the least certain are taken
    importance: float = 0.75  # share of the points that are chosen so; the others are random

    def __post_init__(self) -> None:
        if min(self.classes, self.mask, self.dice) < 0 or self.no_object <= 0:
            raise ValueError(f"weights of losses must not be negative, and no_object above 0, got {self}")
        if self.points < 1 or not 0 <= self.importance <= 1 or self.oversample < max(self.importance, 1):
            raise ValueError(f"expected points >= 1, oversample >= 1 and importance in 0..1, got {self}")


class Answers(NamedTuple):
    """What the queries say after each layer."""

    class_logits: Float[Array, "*B L Q K"]
    mask_logits: Float[Array, "*B L Q h w"]


class Objects(NamedTuple):
    """The objects of images, each in a slot; other slots only pad."""

    classes: Int32[Array, "*B O"]  # of 0 to K - 2
    masks: Shaped[Array, "*B O H W"]  # booleans, or shares 0 to 1, over the same part of the image as the mask logits
    valid: Bool[Array, "*B O"]


class Drawn(NamedTuple):
    """Uniform points for one layer of one image, (x, y) as shares of it."""

    matching: Float32[Array, "P 2"]  # the same for all queries and objects
    candidates: Float32[Array, "O candidates 2"]
    random: Float32[Array, "O random 2"]


class LossSums(NamedTuple):
    """Sums over images and their objects, by layer and unweighted; `total` makes one number of them."""

    classes: Float32[Array, "*B L"]  # cross-entropies, those of queries without an object times `no_object`
    mask: Float32[Array, "*B L"]
    dice: Float32[Array, "*B L"]


class LossCounts(NamedTuple):
    """What the sums are divided by. It follows from the objects alone, so that parts of a batch can be added up."""

    masks: Float32[Array, ""]  # the number of objects, at least 1
    weights: Float32[Array, ""]  # of the cross-entropies: 1 a matched query, `no_object` a query without an object


def loss_sums(config: SetLossConfig, answers: Answers, objects: Objects, keys: Key[Array, " B"]) -> LossSums:
    """Sums of the losses of a batch, by layer.

    Args:
        config: weights and numbers of points.
        answers: of each image, (B, L, ...).
        objects: of each image, (B, ...). Whatever stands in a slot that is not valid changes neither loss nor gradient.
        keys: of each image, which draw its points: they do not depend on the rest of the batch.
    """

    def of_image(answers: Answers, objects: Objects, key: Key[Array, ""]) -> LossSums:
        def of_layer(given):
            answer, layer = given
            drawn = draw_points(config, jax.random.fold_in(key, layer), len(objects.valid))
            return layer_losses(config, answer, objects, drawn)

        # One layer after the other: each has arrays of all objects at all their candidates.
        return lax.map(of_layer, (answers, jnp.arange(len(answers.class_logits), dtype=jnp.int32)))

    sums = map_batch(of_image, answers, objects, keys, together=None)
    return jax.tree.map(lambda term: term.sum(0), sums)


def loss_counts(config: SetLossConfig, valid: Bool[Array, "B O"], queries: int) -> LossCounts:
    """Divisors for the sums of a batch, all of it: over all devices, and before it is cut into parts."""
    present = valid.sum(-1).astype(jnp.float32)
    matched = jnp.minimum(present, queries)
    weights = matched + config.no_object * (queries - matched)
    return LossCounts(jnp.maximum(present.sum(), 1), weights.sum())


def total(config: SetLossConfig, sums: LossSums, counts: LossCounts) -> Float32[Array, ""]:
    """The loss: means of the terms, weighted and added over all layers."""
    masks = config.mask * sums.mask + config.dice * sums.dice
    return (config.classes * sums.classes / counts.weights + masks / counts.masks).sum()


def draw_points(config: SetLossConfig, key: Key[Array, ""], slots: int) -> Drawn:
    """Draws the points of one layer of one image."""
    candidates, random = split_count(config.points, config.oversample, config.importance)
    keys = jax.random.split(key, 3)
    shapes = (config.points, 2), (slots, candidates, 2), (slots, random, 2)
    return Drawn(*(jax.random.uniform(key, shape, jnp.float32) for key, shape in zip(keys, shapes, strict=True)))


def match(
    config: SetLossConfig, answer: Answers, objects: Objects, points: Float32[Array, "P 2"]
) -> Int32[Array, " O"]:
    """The query of each object of an image, -1 for none, by the answers of one layer."""
    answer = lax.stop_gradient(answer)
    logits, masks = _at_points(answer.mask_logits, points), _at_points(objects.masks, points)
    costs = config.classes * class_costs(answer.class_logits, objects.classes)
    costs += config.mask * mask_costs(logits, masks) + config.dice * dice_costs(logits, masks)
    # Searches of images on other devices take other numbers of steps; XLA would make all devices wait after each.
    return on_every_device(assign, mesh_of(costs))(costs, objects.valid)


def layer_losses(config: SetLossConfig, answer: Answers, objects: Objects, drawn: Drawn) -> LossSums:
    """Sums of the losses of an image's objects and queries, by the answers of one layer (which have no axis L)."""
    nothing = answer.class_logits.shape[-1] - 1
    matched = match(config, answer, objects, drawn.matching)
    present = matched >= 0

    queries = len(answer.class_logits)
    slots = jnp.where(present, matched, queries)
    targets = jnp.full(queries, nothing, jnp.int32).at[slots].set(objects.classes, mode="drop")
    log_shares = jax.nn.log_softmax(answer.class_logits.astype(jnp.float32), -1)
    entropies = -jnp.take_along_axis(log_shares, targets[:, None], -1)[:, 0]
    of_classes = (jnp.where(targets == nothing, config.no_object, 1) * entropies).sum()

    # An empty slot may hold anything, and what is computed for it, a NaN perhaps, must not reach the gradient: here the
    # slot's share of the gradient ends.
    chosen = jnp.where(present[:, None, None], answer.mask_logits[jnp.where(present, matched, 0)], 0)
    choose = functools.partial(uncertain_points, count=config.points)
    points = jax.vmap(choose)(chosen, drawn.candidates, drawn.random)
    logits, shares = _at_own_points(chosen, points), _at_own_points(objects.masks, points)
    binary = (jax.nn.softplus(logits) - logits * shares).mean(-1)
    probable = jax.nn.sigmoid(logits)
    dice = 1 - (2 * (probable * shares).sum(-1) + 1) / (probable.sum(-1) + shares.sum(-1) + 1)
    return LossSums(of_classes, jnp.where(present, binary, 0).sum(), jnp.where(present, dice, 0).sum())


def _at_points(maps: Shaped[Array, "N H W"], points: Float32[Array, "P 2"]) -> Float32[Array, "N P"]:
    return sample_points(jnp.moveaxis(maps, 0, -1), points).T  # side by side, so that a point reads all in one place


def _at_own_points(maps: Shaped[Array, "O H W"], points: Float32[Array, "O P 2"]) -> Float32[Array, "O P"]:
    return jax.vmap(lambda grid, own: sample_points(grid[..., None], own)[:, 0])(maps, points)
