"""The optimiser: AdamW or Muon by optax, with the schedules and parameter groups that a recipe names.

Muon moves the matrices of attention and MLPs by orthogonal updates as large as AdamW's would be; in training from
scratch the loss fell faster by the step.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from samjax.config import SamConfig
from samjax.nn.encoders import family_of
from samjax.sharding import path_name

from .config import OptimConfig

# Both of whose sides are features, so that Muon's orthogonal update means something; the image encoder's family has its
# own.
MATRICES = (r"/transformer/.*kernel$",)
MUON_RMS = 0.2  # of an update, as large as AdamW's are, so that the two share one learning rate (arXiv 2502.16982)


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """The learning rate of a step: linear warm-up, then constant, steps, half a cosine or poly down to the end."""
    warmup, peak = config.warmup_steps, config.learning_rate
    rest = max(steps - warmup, 1)
    match config.schedule:
        case "constant":
            after = optax.constant_schedule(peak)
        case "steps":
            # Milestones are shares of the whole run, and `join_schedules` counts from the end of the warm-up.
            at = {round(share * steps) - warmup: config.milestone_factor for share in config.milestones}
            after = optax.piecewise_constant_schedule(peak, at)
        case "cosine":
            after = optax.cosine_decay_schedule(peak, rest, alpha=config.final_rate)
        case "poly":
            after = optax.polynomial_schedule(peak, peak * config.final_rate, config.power, rest)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(config: OptimConfig, sam: SamConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping, Adam or Muon, decoupled weight decay, rates by layer, schedule, for the parameters that are trained.

    With `config.anchor` also a pull to what they were when the optimiser was initialised, which its state keeps.
    Its `update` takes `position`, the step of the schedule that this one counts as; without it, the updates done.
    """

    def by_name(function):
        return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: function(path_name(path)), tree)

    steps_of_update = [
        _scale_by_moments(config, sam),
        optax.add_decayed_weights(config.weight_decay, by_name(lambda name: not _fits(name, config.no_decay))),
        _scale_by_name(lambda name: learning_rate_factor(config, sam, name)),
        _scale_by_rate(make_schedule(config, steps)),
    ]
    if config.anchor:
        steps_of_update.insert(2, _add_pull_to_start(config.anchor))
    if config.clip_norm is not None:
        steps_of_update.insert(0, optax.clip_by_global_norm(config.clip_norm))
    # The mask hides nothing: it gives the moments the names that they have in the checkpoints of 0.1.
    return optax.chain(optax.masked(optax.chain(*steps_of_update), True))


@contextlib.contextmanager
def optax_numerics() -> Iterator[None]:
    """JAX's defaults while optax initialises or updates, whatever strictness or width a program has chosen.

    optax raises floats to integer powers and adds vectors to matrices, and where 64 bits are on its scalars and some of
    its state would be float64.
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def learning_rate_factor(config: OptimConfig, sam: SamConfig, name: str) -> float:
    """The factor of a parameter's learning rate.

    Layer-wise decay: d^(L + 1 - id), where patch and position embedding have id 0, block i has i + 1, and everything
    after the blocks L + 1 (BEiT, arXiv 2106.08254; SAM paper, Appendix A).
    """
    part, _, within = name.partition("/")
    if part != "image_encoder":
        return 1.0
    encoder = sam.image_encoder
    layer = family_of(encoder).layer(encoder, within)
    return config.encoder_rate * math.pow(config.layer_decay, encoder.depth + 1 - layer)


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def is_matrix(sam: SamConfig, name: str, shape: tuple[int, ...]) -> bool:
    """True if a parameter is a matrix, which Muon moves; the kernel of a convolution is none."""
    part, _, within = name.partition("/")
    named = _fits(within, family_of(sam.image_encoder).matrices) if part == "image_encoder" else _fits(name, MATRICES)
    return named and len(shape) == 2


def _scale_by_moments(config: OptimConfig, sam: SamConfig) -> optax.GradientTransformation:
    """Adam, or Muon for matrices and Adam for the rest."""
    adam = optax.scale_by_adam(*config.betas)
    if config.optimizer == "adamw":
        return adam

    def matrices(tree):
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), tree)

    def rescaled(updates, params=None):
        del params
        return jax.tree.map(lambda leaf: leaf * (MUON_RMS * math.sqrt(max(leaf.shape))), updates)

    muon = optax.chain(contrib.scale_by_muon(weight_dimension_numbers=matrices), optax.stateless(rescaled))

    def labels(tree):
        def label(path, leaf):
            return "muon" if is_matrix(sam, path_name(path), leaf.shape) else "adam"

        return jax.tree_util.tree_map_with_path(label, tree)

    return optax.partition({"adam": adam, "muon": muon}, labels)


class AnchorState(NamedTuple):
    """The state of the pull to the start."""

    start: Any  # what is trained, as it was


def _add_pull_to_start(strength: float) -> optax.GradientTransformation:
    """Adds strength · (parameters - start): the gradient of L2-SP (Li et al., arXiv 1802.01483), but decoupled from
    Adam's moments as AdamW's decay is. What starts at zero, such as LoRA's second factor, simply decays."""

    def init(params):
        return AnchorState(jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        pulled = jax.tree.map(lambda leaf, now, start: leaf + strength * (now - start), updates, params, state.start)
        return pulled, state

    return optax.GradientTransformation(init, update)


def _scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """optax's `scale_by_learning_rate`, which may be told where in the schedule it is."""
    by_count = optax.scale_by_learning_rate(schedule)

    def update(updates, state, params=None, *, position=None, **_):
        if position is None:
            return by_count.update(updates, state, params)
        updates, _ = by_count.update(updates, state._replace(count=position), params)
        return updates, state._replace(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(by_count.init, update)


def _scale_by_name(factor: Any) -> optax.GradientTransformation:
    def update(updates, params=None):
        del params
        return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * factor(path_name(path)), updates)

    return optax.stateless(update)
