"""Focal, dice and IoU losses of mask logits, and the choice of the mask that learns (SAM paper, Appendix A).

A mask is compared with what it should be through two maps of the logits' size: how much FOREGROUND and how much
BACKGROUND lies under each logit. At the model's input size they are 0 or 1; at low resolution they are shares of r x r
pixels, and the losses are then those of logits repeated r x r times (but dice's + 1 is one logit, not one pixel).
Padding is neither.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

from samjax.ops.broadcasting import with_rank

from ...config import LossConfig


class MaskLoss(NamedTuple):
    """The loss of one prompt and what it is made of; all are 0 if the prompt is not valid."""

    total: Float32[Array, ""]
    focal: Float32[Array, ""]  # of the mask that learns, unweighted, as the next three
    dice: Float32[Array, ""]
    balanced: Float32[Array, ""]
    iou_error: Float32[Array, ""]
    iou: Float32[Array, ""]  # of the mask with the highest predicted IoU
    best_iou: Float32[Array, ""]  # the highest of the masks


def focal_loss(
    logits: Float32[Array, "*B h w"],
    foreground: Float32[Array, "h w"],
    background: Float32[Array, "h w"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float32[Array, "*B"]:
    """Sigmoid focal loss (arXiv 1708.02002), mean over pixels: alpha weighs foreground, 1 - alpha background."""
    foreground, background = (with_rank(part, logits.ndim) for part in (foreground, background))
    missed = jax.nn.softplus(-logits)  # -log p
    false = missed + logits  # -log(1 - p)
    per_pixel = alpha * foreground * jnp.exp(-gamma * false) * missed
    per_pixel += (1 - alpha) * background * jnp.exp(-gamma * missed) * false
    return per_pixel.sum((-1, -2)) / _or_one((foreground + background).sum())


def dice_loss(
    logits: Float32[Array, "*B h w"], foreground: Float32[Array, "h w"], background: Float32[Array, "h w"]
) -> Float32[Array, "*B"]:
    """1 - (2 Σpg + 1) / (Σp + Σg + 1) of probabilities p and foreground g."""
    foreground, background = (with_rank(part, logits.ndim) for part in (foreground, background))
    probability = jax.nn.sigmoid(logits)
    overlap = (probability * foreground).sum((-1, -2))
    claimed = (probability * (foreground + background)).sum((-1, -2))
    return 1 - (2 * overlap + 1) / (claimed + foreground.sum() + 1)


def balanced_cross_entropy(
    logits: Float32[Array, "*B h w"], foreground: Float32[Array, "h w"], background: Float32[Array, "h w"]
) -> Float32[Array, "*B"]:
    """Cross-entropy in which all foreground weighs as much as all background, however small it is."""
    foreground, background = (with_rank(part, logits.ndim) for part in (foreground, background))
    missed = jax.nn.softplus(-logits)
    of_foreground = (missed * foreground).sum((-1, -2)) / _or_one(foreground.sum())
    of_background = ((missed + logits) * background).sum((-1, -2)) / _or_one(background.sum())
    return (of_foreground + of_background) / 2


def balanced_weight(config: LossConfig, steps: int, step: Int32[Array, ""] | Float32[Array, ""]) -> Float32[Array, ""]:
    """The weight of the balanced cross-entropy at a step of a run of `steps`: falls linearly to zero."""
    end = max(config.balanced_until * steps, 1.0)
    return config.balanced * jnp.maximum(1 - step.astype(jnp.float32) / end, 0)


def mask_iou(
    logits: Float32[Array, "*B h w"], foreground: Float32[Array, "h w"], background: Float32[Array, "h w"]
) -> Float32[Array, "*B"]:
    """IoU of the mask thresholded at logit 0 with the foreground; 0 if there is neither."""
    foreground, background = (with_rank(part, logits.ndim) for part in (foreground, background))
    mask = logits > 0
    overlap = jnp.where(mask, foreground, 0).sum((-1, -2))
    union = foreground.sum() + jnp.where(mask, background, 0).sum((-1, -2))
    return overlap / _or_one(union)


def mask_loss(
    config: LossConfig,
    logits: Float32[Array, "M h w"],
    predicted_iou: Float32[Array, " M"],
    foreground: Float32[Array, "h w"],
    background: Float32[Array, "h w"],
    valid: Bool[Array, ""],
    balanced_weight: Float32[Array, ""] | float = 0.0,
    iou: Float32[Array, " M"] | None = None,
) -> MaskLoss:
    """The loss of the M masks of one prompt: the one with the lowest mask loss learns, the others only look on.

    Args:
        config: weights of the terms.
        logits: mask logits, low-resolution or upsampled, as the two maps.
        predicted_iou: the model's own opinion.
        foreground: how much of the object is under each logit, 0 to 1.
        background: how much of the photo that is not the object.
        valid: False for a slot that only pads; whatever stands in it, loss and gradients are then exactly 0.
        balanced_weight: of the balanced cross-entropy at this step.
        iou: what the predicted IoU is to be; None: `mask_iou` of the logits. At low resolution that is too low, because
            no mask fits a cell that is part foreground, and small objects would learn to distrust themselves.
    """
    logits = jnp.where(valid, logits, 0)  # before and after: a NaN would reach the gradient through the other branch
    predicted_iou = jnp.where(valid, predicted_iou, 0)
    focal = focal_loss(logits, foreground, background, config.focal_alpha, config.focal_gamma)
    dice = dice_loss(logits, foreground, background)
    total = config.focal * focal + config.dice * dice
    balanced = jnp.zeros_like(total)
    if config.balanced:
        balanced = balanced_cross_entropy(logits, foreground, background)
        total += balanced_weight * balanced
    learns = jnp.argmin(total)

    iou = lax.stop_gradient(mask_iou(logits, foreground, background) if iou is None else iou)
    difference = predicted_iou - iou
    errors = jnp.abs(difference) if config.iou_error == "absolute" else jnp.square(difference)
    iou_error = errors.mean() if config.iou_of == "all" else errors[learns]

    loss = MaskLoss(
        total=total[learns] + config.iou * iou_error,
        focal=focal[learns],
        dice=dice[learns],
        balanced=balanced[learns],
        iou_error=iou_error,
        iou=iou[jnp.argmax(predicted_iou)],
        best_iou=iou.max(),
    )
    return jax.tree.map(lambda term: jnp.where(valid, term, 0), loss)


def _or_one(area: Float32[Array, "*B"]) -> Float32[Array, "*B"]:
    """An area to divide by: areas below 1 are parts of a cell, and nothing divides by 1."""
    return jnp.where(area > 0, area, 1)
