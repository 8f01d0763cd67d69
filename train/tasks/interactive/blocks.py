"""The passes over all masks of a batch, in a loop over blocks of images and masks that fit the device together."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt

from samjax.ops.batching import deal, largest_divisor, undeal
from samjax.types import Features, Params

from ... import cells
from ...batch import Batch, cell_ratio
from ...config import InteractionConfig
from . import passes
from .losses import MaskLoss
from .passes import Gradient, Inputs, MaskBlock, PassSettings, only
from .user import Target


class _Group(NamedTuple):
    """G images that are computed together, with all their masks."""

    features: Features  # *K G H W C
    size: Int32[Array | np.ndarray, "*K G 2"]
    masks: UInt[Array | np.ndarray, "*K G N h w"]
    valid: Bool[Array | np.ndarray, "*K G N"]
    key: Key[Array, "*K G"]
    origin: Int32[Array, "*K G 2"] | None
    clicks: Float32[Array | np.ndarray, "*K G N 3"] | None


def gradient(
    settings: PassSettings,
    together: tuple[int | None, int],
    heads: Params,
    batch: Batch,
    image_keys: Key[Array, " B"],
    origin: Int32[Array, "B 2"] | None,
    balanced_weight: Float32[Array, ""],
    features: Features,
    wanted: Gradient | None = None,
) -> tuple[Gradient, MaskLoss]:
    """`passes.gradient` summed over a batch; blocks without a valid mask cost nothing.

    Args:
        settings: of the passes.
        together: images and masks of a block (`samjax.train.execution.blocks_for`).
        heads: parameters of the prompt encoder and the mask decoder.
        batch: the photos and masks.
        image_keys: what each image's draws come from.
        origin: where in the model's input the images are, if they are windows of it.
        balanced_weight: of the balanced cross-entropy.
        features: of the images, B H W C.
        wanted: what the gradient is taken in, as for `passes.gradient`.
    """
    images, slots = batch.valid.shape
    size = largest_divisor(images, together[0] or images)
    group = _Group(features, batch.size, batch.cells, batch.valid, image_keys, origin, batch.clicks)
    groups = jax.tree.map(lambda x: deal(jnp.asarray(x), size), group)
    visit = functools.partial(_visit_group, settings, heads, min(slots, together[1]), balanced_weight, wanted)
    varied = heads if wanted is None else only(wanted, Inputs(heads, features)).params
    start = jax.tree.map(jnp.zeros_like, varied), no_terms(settings.interaction)
    (of_heads, terms), of_features = lax.scan(visit, start, groups)
    return Gradient(of_heads, jax.tree.map(undeal, of_features)), terms


def no_terms(config: InteractionConfig) -> MaskLoss:
    """Zeros to add the passes' terms to."""
    return MaskLoss(*[jnp.zeros(config.passes, jnp.float32)] * len(MaskLoss._fields))


def add(a: Any, b: Any) -> Any:
    """The sum of two trees, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def _visit_group(
    settings: PassSettings,
    heads: Params,
    column: int,
    balanced_weight: Float32[Array, ""],
    wanted: Gradient | None,
    sums: tuple[Params, MaskLoss],
    group: _Group,
) -> tuple[tuple[Params, MaskLoss], Any]:
    """Adds a group's gradient of the heads to the sums and gives that of its features; `column` masks of an image at a
    time."""
    ratio = cell_ratio(settings.sam)
    images, slots = group.valid.shape
    padded = -(-slots // column) * column  # slots that no photo has are never computed
    grid = group.masks.shape[-2], group.masks.shape[-1]  # of a window, if training sees windows
    photo = jax.vmap(lambda size: cells.photo(size, grid, ratio, group.masks.dtype))(group.size)
    photo = jnp.broadcast_to(photo[:, None], (images, column, *photo.shape[1:]))
    number = jnp.arange(padded, dtype=jnp.uint32)
    keys = jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(number))(group.key)

    def visit_block(sums, xs):
        masks, valid, keys, clicks = xs
        block = MaskBlock(Target(masks, photo), valid, keys, group.origin, clicks)

        def compute(sums):
            found = passes.gradient(settings, heads, group.features, block, group.size, balanced_weight, wanted)
            return add(sums, found)

        return lax.cond(valid.any(), compute, lambda sums: sums, sums), None

    of_heads, terms = sums
    varied = group.features if wanted is None else only(wanted, Inputs(heads, group.features)).features
    start = Gradient(of_heads, jax.tree.map(jnp.zeros_like, varied)), terms
    xs = jax.tree.map(lambda x: _columns(x, column), (group.masks, group.valid, keys, group.clicks))
    (gradient, terms), _ = lax.scan(visit_block, start, xs)
    return (gradient.params, terms), gradient.features


def _columns(x: Array | np.ndarray, column: int) -> Array:
    """(G, N, ...) as (columns, G, column, ...), padded with zeros where N is no multiple of `column`."""
    missing = -x.shape[1] % column
    x = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)) if missing else x
    return jnp.moveaxis(x.reshape(len(x), -1, column, *x.shape[2:]), 1, 0)
