"""The simulated user on the device: first prompts, clicks where the mask is wrong (SAM paper, Appendix A).

A prompt has fixed slots: two for the first point and its padding point, or for the corners of the box; then one for
each click, absent until it is made. Everything here is for one mask; callers map over masks. Coordinates are (x, y) in
pixels of the padded model input, as everywhere in training. Clicks are random, so that a model learns from all places;
the users of validation (`samjax.train.tasks.interactive.cell_clicks`) and of benchmarks
(`samjax.evaluation.user.clicks`) click where the error is deepest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt

from samjax.config import PromptLabel

from ... import cells
from ...config import InteractionConfig

FIRST = 2  # slots of the first prompt


class Target(NamedTuple):
    """The mask to be found, and the place of the photo."""

    mask: UInt[Array, "h w"]  # cells
    photo: UInt[Array, "h w"]  # cells that are not padding


class Slots(NamedTuple):
    """The prompt of one mask so far."""

    points: Float32[Array, "T 2"]
    labels: Int32[Array, " T"]


def first_prompt(
    config: InteractionConfig,
    key: Key[Array, ""],
    target: Target,
    ratio: int,
    recorded: Float32[Array, "3"] | None = None,
) -> Slots:
    """A point on the mask or its box, moved; everything absent where the mask is empty.

    `recorded` is (x, y, 1) of a recorded click, zeros where there is none: with `config.recorded_share` it is the
    point, whatever else would have been shown.
    """
    which, where, noise = jax.random.split(key, 3)
    point, found = cells.sample_pixel(where, target.mask, ratio)
    corners = noisy_box(config, noise, cells.box(target.mask, ratio), cells.box(target.photo, ratio)[2:])
    is_box = jax.random.bernoulli(which, np.float32(config.box_probability))
    if recorded is not None:
        # A fourth key: the other three are those of a run without recorded clicks.
        is_shown = jax.random.bernoulli(jax.random.fold_in(key, np.uint32(3)), np.float32(config.recorded_share))
        is_recorded = is_shown & (recorded[2] > 0)
        point, is_box = jnp.where(is_recorded, recorded[:2], point), is_box & ~is_recorded
    points = jnp.where(is_box, corners.reshape(2, 2), jnp.stack([point, jnp.zeros_like(point)]))
    box = jnp.array((PromptLabel.BOX_MIN, PromptLabel.BOX_MAX), jnp.int32)
    click = jnp.array((PromptLabel.FOREGROUND, PromptLabel.NOT_A_POINT), jnp.int32)
    labels = jnp.where(is_box, box, click)
    labels = jnp.where(found, labels, PromptLabel.ABSENT)
    free = config.corrections
    return Slots(jnp.pad(points, ((0, free), (0, 0))), jnp.pad(labels, (0, free), constant_values=PromptLabel.ABSENT))


def noisy_box(
    config: InteractionConfig, key: Key[Array, ""], box: Float32[Array, "4"], limit: Float32[Array, "2"]
) -> Float32[Array, "4"]:
    """A box (x0, y0, x1, y1) whose coordinates are moved by Gaussian noise in proportion to its sides, x by the width
    and y by the height; never by more than the configured pixels, nor out of 0..limit (x, y), the photo's last pixel.
    """
    side = jnp.tile(box[2:] - box[:2] + 1, 2)
    noise = config.box_noise * side * jax.random.normal(key, (4,), jnp.float32)
    noise = jnp.clip(noise, -config.box_noise_limit, config.box_noise_limit)
    return jnp.clip(box + noise, 0, jnp.tile(limit, 2))


def click_schedule(config: InteractionConfig, key: Key[Array, ""]) -> Bool[Array, " later"]:
    """Marks the passes after the first that get a new click: all but the last and, at random places before a click, as
    many more as there are refinements beside it."""
    if not config.corrections or not config.refinements:
        return jnp.full(config.passes - 1, config.corrections > 0)
    elsewhere = config.refinements - 1
    places = jnp.arange(config.corrections - 1 + elsewhere, dtype=jnp.int32)
    among = jax.random.permutation(key, places) >= elsewhere
    return jnp.concatenate([among, jnp.array([True, False])])


def click(
    key: Key[Array, ""],
    slots: Slots,
    clicks_before: Int32[Array, ""],
    mask: Bool[Array, "h w"],
    target: Target,
    ratio: int,
) -> Slots:
    """One more click: uniform over the pixels where the mask is wrong, foreground where it misses the object and
    background where it goes beyond it; a background pixel where nothing is wrong, and none where all is foreground.
    """
    beside = target.photo & ~target.mask
    wrong = jnp.where(mask, beside, target.mask)
    is_perfect = ~(wrong != 0).any()
    point, found = cells.sample_pixel(key, jnp.where(is_perfect, beside, wrong), ratio)
    column, row = point.astype(jnp.int32) // ratio
    label = jnp.where(is_perfect | mask[row, column], PromptLabel.BACKGROUND, PromptLabel.FOREGROUND).astype(jnp.int32)
    slot = FIRST + clicks_before
    return Slots(
        slots.points.at[slot].set(point), slots.labels.at[slot].set(jnp.where(found, label, PromptLabel.ABSENT))
    )


def most_confident(logits: Float32[Array, "M h w"], iou: Float32[Array, " M"]) -> Float32[Array, "h w"]:
    """The mask that is carried on: the one with the highest predicted IoU."""
    return lax.dynamic_index_in_dim(logits, jnp.argmax(iou), keepdims=False)
