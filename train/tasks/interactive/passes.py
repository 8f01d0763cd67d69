"""The decoder's passes over a block of masks: prompts, losses and gradients of all of them in constant memory.

Nothing but points and carried logits goes from one pass to the next. Where the logits carry no gradient (the default),
the gradient of the sum is the sum of each pass's own gradient, so it is taken inside the loop, pass by pass: no pass is
remembered or computed twice. Otherwise passes are rematerialised.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32

from samjax.config import HqMasks, PromptLabel, SamConfig
from samjax.execution import Execution
from samjax.model import decode
from samjax.types import Embedding, Features, Params, Perturbation, Prompts

from ... import cells
from ...batch import cell_ratio, unpack_cells
from ...config import InteractionConfig, LossConfig
from ...regularise import dropout_weights
from . import user
from .losses import MaskLoss, mask_loss
from .user import Slots, Target


class PassSettings(NamedTuple):
    """The static settings of the passes."""

    sam: SamConfig
    interaction: InteractionConfig
    loss: LossConfig
    execution: Execution
    dropout: float
    hq: HqMasks | None = None  # the mask of an HQ-SAM that is compared with the object; None: what it answers with


class MaskBlock(NamedTuple):
    """B images with N masks each, one prompt for each, whose passes are computed together."""

    target: Target  # B N h w, and the photo likewise
    valid: Bool[Array, "B N"]
    key: Key[Array, "B N"]
    origin: Int32[Array, "B 2"] | None = None  # where in the model's input the image is, if it is a window of it
    clicks: Float32[Array, "B N 3"] | None = None  # as `Batch.clicks`


class Gradient(NamedTuple):
    """The gradient of the sum of the losses of the valid masks; None in place of what is not wanted.

    With booleans: what is wanted.
    """

    params: Params  # of prompt encoder and mask decoder
    features: Any  # `Features` of B H W C


class Inputs(NamedTuple):
    """The inputs of the passes that they may be differentiated in."""

    params: Params  # of prompt encoder and mask decoder
    features: Features  # B H W C


Varied = Any  # `Inputs`, with None in place of what is not differentiated
# The sum of a pass's losses; the logits to carry on, and the loss's terms, summed over masks.
Visited = tuple[Float32[Array, ""], tuple[Float32[Array, "B N h w"], MaskLoss]]


def gradient(
    settings: PassSettings,
    params: Params,
    features: Features,
    block: MaskBlock,
    size: Int32[Array | np.ndarray, "B 2"],
    balanced_weight: Float32[Array, ""],
    wanted: Gradient | None = None,
) -> tuple[Gradient, MaskLoss]:
    """The gradient of the passes' losses, and their terms summed over masks: each term has one value a pass.

    Args:
        settings: of the passes.
        params: those of the prompt encoder and the mask decoder.
        features: of the images, B H W C.
        block: the masks.
        size: (height, width) of the photos in the padded model input.
        balanced_weight: of the balanced cross-entropy.
        wanted: what the gradient is taken in; None: everything. What is not wanted is not computed.
    """
    keys = jax.vmap(jax.vmap(functools.partial(jax.random.split, num=4)))(block.key)
    inputs = Inputs(params, features)
    varied = inputs if wanted is None else only(wanted, inputs)
    passes = _Passes(settings, inputs, block, size, balanced_weight, keys[..., 2], keys[..., 3])

    def first(key, target, recorded):
        return user.first_prompt(settings.interaction, key, target, cell_ratio(settings.sam), recorded)

    slots = _over_masks(first)(keys[..., 0], block.target, block.clicks)
    schedule = _over_masks(functools.partial(user.click_schedule, settings.interaction))(keys[..., 1])
    schedule = jnp.moveaxis(schedule, -1, 0)
    later = _Later(
        jnp.arange(1, settings.interaction.passes, dtype=jnp.uint32),
        schedule,
        jnp.cumsum(schedule, 0, dtype=jnp.int32) - schedule.astype(jnp.int32),
    )
    through = _gradient_of_sum if settings.interaction.carry_gradient else _sum_of_gradients
    found, terms = through(passes, varied, slots, later)
    return Gradient(*found), terms


def only(wanted: Gradient, inputs: Inputs) -> Varied:
    """The inputs that the gradient is wanted in, None in place of the others."""
    return jax.tree.map(lambda leaf, flag: leaf if flag else None, inputs, Inputs(*wanted))


class _Later(NamedTuple):
    """The passes after the first, one each along the leading axis."""

    number: UInt32[Array, "*P"]
    is_click: Bool[Array, "*P B N"]  # otherwise the mask is refined without a new click
    clicks_before: Int32[Array, "*P B N"]


class _Passes(NamedTuple):
    """The inputs that all passes over a block share."""

    settings: PassSettings
    inputs: Inputs
    block: MaskBlock
    size: Int32[Array | np.ndarray, "B 2"]
    balanced_weight: Float32[Array, ""]
    click_keys: Key[Array, "B N"]
    dropout_keys: Key[Array, "B N"]

    def first(self, varied: Varied, slots: Slots) -> Visited:
        """The first pass, which has no mask to start from."""
        return _visit(self, self._whole(varied), slots, None, np.uint32(0))

    def later(self, varied: Varied, slots: Slots, logits: Float32[Array, "B N h w"], number: Any) -> Visited:
        """A pass that corrects the mask of the one before."""
        return _visit(self, self._whole(varied), slots, logits, number)

    def _whole(self, varied: Varied) -> Inputs:
        return jax.tree.map(lambda leaf, own: leaf if own is None else own, self.inputs, varied)

    def clicked(self, slots: Slots, logits: Float32[Array, "B N h w"], step: _Later) -> Slots:
        """The prompt of the next pass: with one more click, if it has one."""
        ratio = cell_ratio(self.settings.sam)

        def one(key, slots, before, logits, target, is_click):
            clicked = user.click(jax.random.fold_in(key, step.number), slots, before, logits > 0, target, ratio)
            return jax.tree.map(lambda new, old: jnp.where(is_click, new, old), clicked, slots)

        masks = self.click_keys, slots, step.clicks_before, logits, self.block.target, step.is_click
        return _over_masks(one)(*masks)


def _sum_of_gradients(passes: _Passes, varied: Varied, slots: Slots, later: _Later) -> tuple[Varied, MaskLoss]:
    """No gradient goes through the carried logits: each pass's own gradient is added up, pass by pass."""
    (_, (logits, terms)), gradients = jax.value_and_grad(passes.first, has_aux=True)(varied, slots)

    def visit(carry, step):
        slots, logits, gradients = carry
        slots = passes.clicked(slots, logits, step)
        with_gradient = jax.value_and_grad(passes.later, has_aux=True)
        (_, (logits, terms)), more = with_gradient(varied, slots, logits, step.number)
        return (slots, logits, jax.tree.map(jnp.add, gradients, more)), terms

    (_, _, gradients), others = lax.scan(visit, (slots, logits, gradients), later)
    return gradients, _stack(terms, others)


def _gradient_of_sum(passes: _Passes, varied: Varied, slots: Slots, later: _Later) -> tuple[Varied, MaskLoss]:
    """The gradient also goes through the carried logits: passes are rematerialised."""

    def total(varied):
        loss, (logits, terms) = passes.first(varied, slots)

        @jax.checkpoint
        def visit(carry, step):
            slots, logits, loss = carry
            slots = passes.clicked(slots, lax.stop_gradient(logits), step)
            more, (logits, terms) = passes.later(varied, slots, logits, step.number)
            return (slots, logits, loss + more), terms

        (_, _, loss), others = lax.scan(visit, (slots, logits, loss), later)
        return loss, (terms, others)

    (_, (terms, others)), gradients = jax.value_and_grad(total, has_aux=True)(varied)
    return gradients, _stack(terms, others)


def _visit(
    passes: _Passes, inputs: Inputs, slots: Slots, logits: Float32[Array, "B N h w"] | None, number: Any
) -> Visited:
    """One pass over a block: the sum of its losses, the logits to carry on and the loss's terms, summed over masks.

    Without `logits` it is the first pass, which asks for three masks.
    """
    settings, block, balanced_weight = passes.settings, passes.block, passes.balanced_weight
    size = jnp.asarray(passes.size)
    params, features = inputs
    is_first = logits is None
    # All logits count: None, not an array of True, with which XLA spends minutes on folding a gradient of zeros.
    prompts = Prompts(slots.points, slots.labels, block.valid, logits)
    # Training knows the INPUT frame only; photos of that size have it as their own.
    embedding = Embedding(features.image, size, size, features.taps)
    ask = functools.partial(decode, settings.sam, params, embedding, prompts, settings.execution, hq=settings.hq)
    dropout_keys = _over_masks(lambda key: jax.random.fold_in(key, number))(passes.dropout_keys)
    weights = dropout_weights(settings.sam, settings.dropout, dropout_keys, slots.labels.shape[-1])
    change = Perturbation(weights, block.origin)
    prediction = ask(multimask=is_first, perturbation=change)
    masks, iou = prediction.logits, prediction.iou
    terms = _losses(settings, masks, iou, block, balanced_weight)
    carried = _over_masks(user.most_confident)(masks, iou)
    if is_first and not settings.interaction.box_multimask and settings.hq != "only":  # whose mask is the same
        single = ask(multimask=False, perturbation=change)
        is_box = slots.labels[..., 0] == PromptLabel.BOX_MIN
        single_terms = _losses(settings, single.logits, single.iou, block, balanced_weight)
        terms = jax.tree.map(lambda one, three: jnp.where(is_box, one, three), single_terms, terms)
        carried = jnp.where(is_box[..., None, None], single.logits[:, :, 0], carried)
    terms = jax.tree.map(jnp.sum, terms)
    return terms.total, (carried, terms)


def _losses(
    settings: PassSettings,
    logits: Float32[Array | np.ndarray, "B N M h w"],
    iou: Float32[Array | np.ndarray, "B N M"],
    block: MaskBlock,
    balanced_weight: Any,
) -> MaskLoss:
    ratio = cell_ratio(settings.sam)

    def one(logits, predicted_iou, target, valid):
        beside = target.photo & ~target.mask
        true_iou = cells.iou(cells.from_logits(lax.stop_gradient(logits), target.photo, ratio), target.mask)
        if settings.loss.resolution == "input":
            logits = cells.upsample(logits, ratio)
            inside, outside = (unpack_cells(part, ratio).astype(jnp.float32) for part in (target.mask, beside))
        else:
            inside, outside = (cells.counts(part).astype(jnp.float32) / ratio**2 for part in (target.mask, beside))
        return mask_loss(settings.loss, logits, predicted_iou, inside, outside, valid, balanced_weight, true_iou)

    return _over_masks(one)(logits, iou, block.target, block.valid)


def _stack(first: MaskLoss, others: MaskLoss) -> MaskLoss:
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, others)


def _over_masks(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(function))
