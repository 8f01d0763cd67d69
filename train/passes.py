"""The decoder's passes over a block of masks: prompts, losses and gradients of all of them in constant memory.

Nothing but points and carried logits goes from one pass to the next. Where the logits carry no gradient (the default),
the gradient of the sum is the sum of each pass's own gradient, so it is taken inside the loop, pass by pass: no pass is
remembered or computed twice. Otherwise passes are rematerialised.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from samjax.config import Execution, PromptLabel, SamConfig
from samjax.model import Params, decode
from samjax.types import Embedding, Prompts

from . import cells, interaction
from .batch import cell_ratio
from .config import InteractionConfig, LossConfig
from .interaction import Slots, Target
from .losses import MaskLoss, mask_loss


class Recipe(NamedTuple):
    """What decides the passes; static."""

    sam: SamConfig
    interaction: InteractionConfig
    loss: LossConfig
    execution: Execution
    dropout: float


class Block(NamedTuple):
    """B images with M masks each, whose passes are computed together."""

    target: Target  # B M h w, and the photo likewise
    valid: Bool[Array, "B M"]
    key: Key[Array, "B M"]
    origin: Int32[Array, "B 2"] | None = None  # where in the model's input the image is, if it is a window of it


class Gradient(NamedTuple):
    """Of the sum of the losses of the valid masks."""

    params: Params  # of prompt encoder and mask decoder
    features: Float[Array, "B H W C"]


def gradient(
    recipe: Recipe,
    params: Params,
    features: Float[Array, "B H W C"],
    block: Block,
    size: Int32[Array, "B 2"],
    balanced_weight: Float32[Array, ""],
) -> tuple[Gradient, MaskLoss]:
    """The gradient of the passes' losses, and their terms summed over masks: each term has one value a pass.

    `params` are those of the prompt encoder and the mask decoder; `size` is (height, width) of the photos in the padded
    model input.
    """
    one_pass = functools.partial(_pass, recipe, block, size, balanced_weight)
    ratio = cell_ratio(recipe.sam)
    keys = jax.vmap(jax.vmap(functools.partial(jax.random.split, num=4)))(block.key)
    over_masks = lambda function: jax.vmap(jax.vmap(function))  # noqa: E731
    slots = over_masks(lambda key, target: interaction.first_prompt(recipe.interaction, key, target, ratio))(
        keys[..., 0], block.target
    )
    schedule = over_masks(functools.partial(interaction.click_schedule, recipe.interaction))(keys[..., 1])
    schedule = jnp.moveaxis(schedule, -1, 0)
    clicks_before = jnp.cumsum(schedule, 0, dtype=jnp.int32) - schedule.astype(jnp.int32)

    def next_slots(slots: Slots, logits: Any, number: Any, is_click: Any, before: Any) -> Slots:
        """With one more click where this pass has one."""

        def one(key, slots, before, logits, target, is_click):
            clicked = interaction.click(jax.random.fold_in(key, number), slots, before, logits > 0, target, ratio)
            return jax.tree.map(lambda new, old: jnp.where(is_click, new, old), clicked, slots)

        return over_masks(one)(keys[..., 2], slots, before, logits, block.target, is_click)

    def dropout_keys(number: Any) -> Key[Array, "B M"]:
        return over_masks(lambda key: jax.random.fold_in(key, number))(keys[..., 3])

    later = jnp.arange(1, recipe.interaction.passes, dtype=jnp.uint32), schedule, clicks_before

    if recipe.interaction.carry_gradient:

        def total(trained):
            loss, (logits, terms) = one_pass(trained, slots, None, dropout_keys(0))

            @jax.checkpoint
            def visit(carry, step):
                slots, logits, loss = carry
                number, is_click, before = step
                slots = next_slots(slots, lax.stop_gradient(logits), number, is_click, before)
                more, (logits, terms) = one_pass(trained, slots, logits, dropout_keys(number))
                return (slots, logits, loss + more), terms

            (_, _, loss), others = lax.scan(visit, (slots, logits, loss), later)
            return loss, (terms, others)

        (_, (terms, others)), (of_params, of_features) = jax.value_and_grad(total, has_aux=True)((params, features))
        return Gradient(of_params, of_features), _stack(terms, others)

    with_gradient = jax.value_and_grad(one_pass, has_aux=True)

    (_, (logits, terms)), gradients = with_gradient((params, features), slots, None, dropout_keys(0))

    def visit(carry, step):
        slots, logits, gradients = carry
        number, is_click, before = step
        slots = next_slots(slots, logits, number, is_click, before)
        (_, (logits, terms)), more = with_gradient((params, features), slots, logits, dropout_keys(number))
        return (slots, logits, jax.tree.map(jnp.add, gradients, more)), terms

    (_, _, gradients), others = lax.scan(visit, (slots, logits, gradients), later)
    return Gradient(*gradients), _stack(terms, others)


def _pass(
    recipe: Recipe,
    block: Block,
    size: Int32[Array, "B 2"],
    balanced_weight: Float32[Array, ""],
    trained: tuple[Params, Float[Array, "B H W C"]],
    slots: Slots,
    logits: Float32[Array, "B M h w"] | None,
    dropout_keys: Key[Array, "B M"],
) -> tuple[Float32[Array, ""], tuple[Float32[Array, "B M h w"], MaskLoss]]:
    """One pass over a block: the sum of its losses, the logits to carry on and the loss's terms, summed over masks.

    Without `logits` it is the first pass, which asks for three masks.
    """
    params, features = trained
    is_first = logits is None
    # All logits count. Said by an array of True, XLA would spend minutes on folding the gradient of what no mask gives.
    prompts = Prompts(slots.points, slots.labels, block.valid, logits)
    # Training knows the INPUT frame only; photos of that size have it as their own.
    ask = functools.partial(decode, recipe.sam, params, Embedding(features, size, size), prompts, recipe.execution)
    weights = _dropout_weights(recipe, dropout_keys, slots.labels.shape[-1])
    prediction = ask(multimask=is_first, branch_weights=weights, origin=block.origin)
    masks, iou = prediction.logits, prediction.iou
    terms = _losses(recipe, masks, iou, block, balanced_weight)
    carried = jax.vmap(jax.vmap(interaction.most_confident))(masks, iou)
    if is_first and not recipe.interaction.box_multimask:
        single = ask(multimask=False, branch_weights=weights, origin=block.origin)
        is_box = slots.labels[..., 0] == PromptLabel.BOX_MIN
        single_terms = _losses(recipe, single.logits, single.iou, block, balanced_weight)
        terms = jax.tree.map(lambda one, three: jnp.where(is_box, one, three), single_terms, terms)
        carried = jnp.where(is_box[..., None, None], single.logits[:, :, 0], carried)
    terms = jax.tree.map(jnp.sum, terms)
    return terms.total, (carried, terms)


def _losses(
    recipe: Recipe,
    logits: Float32[Array, "B N M h w"],
    iou: Float32[Array, "B N M"],
    block: Block,
    balanced_weight: Any,
) -> MaskLoss:
    ratio = cell_ratio(recipe.sam)

    def one(logits, predicted_iou, target, valid):
        beside = target.photo & ~target.mask
        true_iou = cells.iou(cells.of_logits(lax.stop_gradient(logits), target.photo, ratio), target.mask)
        if recipe.loss.resolution == "input":
            logits = cells.upsample(logits, ratio)
            parts = (cells.unpack(part, ratio).astype(jnp.float32) for part in (target.mask, beside))
        else:
            parts = (cells.counts(part).astype(jnp.float32) / ratio**2 for part in (target.mask, beside))
        return mask_loss(recipe.loss, logits, predicted_iou, *parts, valid, balanced_weight, true_iou)

    return jax.vmap(jax.vmap(one))(logits, iou, block.target, block.valid)


def _dropout_weights(
    recipe: Recipe, keys: Key[Array, "B M"], prompt_tokens: int
) -> Float32[Array, "B M depth 3 T C"] | None:
    if not recipe.dropout:
        return None
    keep = np.float32(1 - recipe.dropout)
    shape = recipe.sam.mask_decoder.depth, 3, 1 + recipe.sam.mask_tokens + prompt_tokens, recipe.sam.width
    return jax.vmap(jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape).astype(jnp.float32) / keep))(keys)


def _stack(first: MaskLoss, others: MaskLoss) -> MaskLoss:
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, others)
