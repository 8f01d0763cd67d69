"""One training step as one program on a mesh: encode once, all passes of every mask, one update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32, Key, UInt8

from samjax.config import Execution, SamConfig
from samjax.model import Params, abstract_params, encode, init_params
from samjax.ops.broadcasting import with_rank
from samjax.sharding import batch_sharding, shardings
from samjax.transforms import PIXEL_MEAN, PIXEL_STD

from . import cells, passes
from .batch import Batch, cell_ratio
from .config import InteractionConfig, TrainConfig
from .interaction import Target
from .losses import MaskLoss
from .optim import is_frozen, optax_numerics
from .passes import Block, Gradient, Recipe
from .state import TrainState

Metrics = dict[str, Any]
StepFunction = Callable[..., tuple[TrainState, Metrics]]  # of state, batch, and the position in the schedules


def init_state(config: TrainConfig, params: Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step, computed where it will lie; `params` may be on the host or anywhere."""

    start = functools.partial(_start, config, optimizer)
    placed = jax.device_put(params, shardings(params, mesh))
    return jax.jit(start, out_shardings=shardings(jax.eval_shape(start, placed), mesh))(placed)


def abstract_state(
    config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes and shardings of the state, for restoring onto this mesh and for ahead-of-time compilation."""
    state = jax.eval_shape(functools.partial(_start, config, optimizer), abstract_params(sam))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings(state, mesh),
    )


def fresh_params(config: TrainConfig, sam: SamConfig, mesh: Mesh) -> Params:
    """Freshly initialised parameters, computed on their shards."""

    def start(key):
        params = init_params(sam, key)
        return align_attention(params) if config.model.aligned_attention else params

    key = jax.random.key(config.run.seed)
    return jax.jit(start, out_shardings=shardings(jax.eval_shape(start, key), mesh))(key)


def align_attention(params: Params) -> Params:
    """The same parameters with the keys of the decoder's cross-attentions projected as its queries are.

    Prompt tokens and image tokens share position codes. With q = k a token attends to its own place from the first
    step on; with two independent random projections it attends everywhere alike, and training from scratch predicts
    empty masks for hundreds of steps.
    """

    def align(node):
        if not isinstance(node, dict):
            return node
        node = {name: align(child) for name, child in node.items()}
        for name, child in node.items():
            if name in ("cross_attn_token_to_image", "cross_attn_image_to_token", "final_attn_token_to_image"):
                node[name] = {**child, "k_proj": child["q_proj"]}
        return node

    return {**params, "mask_decoder": align(params["mask_decoder"])}


def make_step(config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> StepFunction:
    """The jitted step. It consumes the state (its buffers are reused) and gives the next one with the step's metrics.

    The loss is the sum over masks and passes, divided by the number of valid masks in the whole batch, wherever on the
    mesh and in whichever piece of an accumulated batch they are. Where loss or gradient is not finite the state stays
    as it was, and `metrics["finite"]` is False. A third argument is the position in the schedules, out of `run.steps`;
    without it, that is the number of updates done. Metrics: "loss", "gradient_norm", "masks" (valid ones), "finite",
    and "passes", a `MaskLoss` of means over masks, each with one value a pass.
    """
    recipe = Recipe(sam, config.interaction, config.loss, decoder_execution(config), config.run.dropout)
    encoder_execution = encoder_execution_for(config, mesh)
    frozen_encoder = is_frozen(config.optim, sam, "image_encoder")
    together = blocks_for(config, mesh)
    over_passes = 1.0 if config.loss.over_passes == "sum" else 1 / config.interaction.passes

    def of_piece(params: Params, batch: Batch, key: Key[Array, ""], balanced_weight: Float32[Array, ""]):
        """Gradient and loss terms, summed over the masks of a piece of the batch."""
        image_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch.position)
        split = jax.vmap(functools.partial(jax.random.split, num=3))
        path_keys, mask_keys, window_keys = jnp.moveaxis(split(image_keys), 1, 0)
        origin = window_origins(sam, config.model.window, window_keys)
        pixels = jax.vmap(to_pixels)(batch.image, batch.size)
        branch_weights = drop_path_weights(sam, config.run.drop_path, path_keys)

        def features_of(encoder: Params) -> Float[Array, "B H W C"]:
            random = {"branch_weights": branch_weights, "origin": origin}
            features = encode(sam, {"image_encoder": encoder}, pixels, encoder_execution, **random)
            return features.astype(jnp.float32)  # the gradients of hundreds of passes are summed in it

        # The heads are small and used in every pass: gathered once, and not in each.
        heads = {name: params[name] for name in ("prompt_encoder", "mask_decoder")}
        heads = lax.with_sharding_constraint(heads, NamedSharding(mesh, P()))
        over_blocks = functools.partial(
            _over_blocks, recipe, together, heads, batch, mask_keys, origin, balanced_weight
        )
        if frozen_encoder:
            gradient, terms = over_blocks(features_of(params["image_encoder"]))
            of_encoder = jax.tree.map(jnp.zeros_like, params["image_encoder"])
        else:
            features, pull_back = jax.vjp(features_of, params["image_encoder"])
            gradient, terms = over_blocks(features)
            (of_encoder,) = pull_back(gradient.features)
        return {"image_encoder": of_encoder, **gradient.params}, terms

    def step(state: TrainState, batch: Batch, position: Float32[Array, ""] | None = None) -> tuple[TrainState, Metrics]:
        key = jax.random.wrap_key_data(state.key)
        pieces = _pieces(batch, config.run.accumulate, mesh)
        balanced = balanced_weight(config, state.step if position is None else position)
        gradient_of = functools.partial(of_piece, state.params, key=key, balanced_weight=balanced)
        if config.run.accumulate == 1:
            gradient, terms = gradient_of(jax.tree.map(lambda x: x[0], pieces))
        else:
            zeros = jax.tree.map(jnp.zeros_like, state.params), no_terms(config.interaction)
            (gradient, terms), _ = lax.scan(lambda sums, piece: (_add(sums, gradient_of(piece)), None), zeros, pieces)

        masks = batch.valid.sum(dtype=jnp.int32)
        share = 1 / jnp.maximum(masks, 1).astype(jnp.float32)
        gradient = jax.tree.map(lambda g: g * (share * over_passes), gradient)
        gradient = lax.with_sharding_constraint(gradient, shardings(gradient, mesh))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(terms.total.sum())

        with optax_numerics():
            told = {} if position is None else {"position": position}
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, **told)
        params = optax.apply_updates(state.params, updates)
        average = None
        if config.optim.ema is not None:
            average = optax.incremental_update(params, state.ema, 1 - ema_decay(config.optim.ema, state.step))
        updated = TrainState(state.step + 1, params, opt_state, average, state.key)
        updated = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        terms = jax.tree.map(lambda term: term * share, terms)
        loss = terms.total.sum() * over_passes
        return updated, {"loss": loss, "gradient_norm": norm, "masks": masks, "finite": finite, "passes": terms}

    # Written exactly as the first state's: the second step would otherwise be another program, compiled again.
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, sam, optimizer, mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=(placed, NamedSharding(mesh, P())))


def to_pixels(image: UInt8[Array, "H W 3"], size: Int32[Array, "2"]) -> Float32[Array, "H W 3"]:
    """8-bit RGB, padded, as the encoder takes it: normalised, then 0 in the padding (`transforms.to_pixels`)."""
    y, x = (jnp.arange(side, dtype=jnp.int32) < extent for side, extent in zip(image.shape, size, strict=False))
    mean, std = (with_rank(jnp.asarray(channels), 3) for channels in (PIXEL_MEAN, PIXEL_STD))
    pixels = (image.astype(jnp.float32) - mean) / std
    return jnp.where((y[:, None] & x[None])[:, :, None], pixels, 0)


def drop_path_weights(sam: SamConfig, rate: float, keys: Key[Array, " B"]) -> Float32[Array, "B depth 2"] | None:
    """Stochastic depth (arXiv 1603.09382): a branch of block i is dropped for an image with probability
    rate·i / (depth - 1); what stays is scaled up to the same expectation."""
    if not rate:
        return None
    depth = sam.image_encoder.depth
    keep = 1 - rate * jnp.arange(depth, dtype=jnp.float32)[:, None] / max(depth - 1, 1)

    def draw(key):
        return jnp.where(jax.random.uniform(key, (depth, 2), jnp.float32) < keep, 1 / keep, 0)

    return jax.vmap(draw)(keys)


def window_origins(sam: SamConfig, side: int | None, keys: Key[Array, " B"]) -> Int32[Array, "B 2"] | None:
    """Where in the model's input each image lies that is only a window of `side` pixels: (x, y) in pixels, drawn
    uniformly from the places that are aligned with the encoder's attention windows."""
    if side is None:
        return None
    stride = sam.image_encoder.patch_size * sam.image_encoder.window_size
    height, width = sam.image_size
    places = jnp.array([(width - side) // stride + 1, (height - side) // stride + 1], jnp.int32)
    return stride * jax.vmap(lambda key: jax.random.randint(key, (2,), 0, places, jnp.int32))(keys)


def ema_decay(decay: float, step: Int32[Array, ""]) -> Float32[Array, ""]:
    """Of the averaged parameters: smaller at first, so that they do not remember the random start for long."""
    done = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + done) / (10 + done))


def balanced_weight(config: TrainConfig, step: Int32[Array, ""] | Float32[Array, ""]) -> Float32[Array, ""]:
    """Of the balanced cross-entropy at a step: falls linearly to zero."""
    end = max(config.loss.balanced_until * config.run.steps, 1.0)
    return config.loss.balanced * jnp.maximum(1 - step.astype(jnp.float32) / end, 0)


def encoder_execution_for(config: TrainConfig, mesh: Mesh) -> Execution:
    """How the encoder runs in a step: on one device in pieces that fit it, on several all images at once, because a
    loop over a sharded axis would gather it."""
    how = Execution.for_backend(mesh.devices.flat[0].platform, config.run.compute_dtype)
    together = None if mesh.size > 1 else config.run.images_together or how.images_per_step
    return dataclasses.replace(how, images_per_step=together, remat=config.run.remat)


def validation_execution(config: TrainConfig, mesh: Mesh) -> Execution:
    """How trained parameters are looked at, on the same devices."""
    how = Execution.for_backend(mesh.devices.flat[0].platform, config.run.compute_dtype)
    return dataclasses.replace(how, images_per_step=None) if mesh.size > 1 else how


def decoder_execution(config: TrainConfig) -> Execution:
    """How a block of masks runs: all at once, `blocks_for` having cut it to size."""
    return Execution(config.run.compute_dtype)


def blocks_for(config: TrainConfig, mesh: Mesh) -> tuple[int | None, int]:
    """Images and masks of a block; None: all images, as on a mesh, where a loop over a sharded axis would gather it.

    By default a few masks a device on CPU, so that they stay in cache, and 32 on accelerators: a ViT-B's mask takes
    about 100 MB while its gradient is computed.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    images = None if mesh.size > 1 else config.run.images_together or (1 if on_cpu else None)
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    on_device = images or max(config.run.batch // config.run.accumulate // devices, 1)
    return images, config.run.masks_together or max((2 if on_cpu else 32) // on_device, 1)


def _start(config: TrainConfig, optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    average = None if config.optim.ema is None else jax.tree.map(jnp.copy, params)
    with optax_numerics():
        moments = optimizer.init(params)
    key = jax.random.key_data(jax.random.key(config.run.seed))
    return TrainState(jnp.zeros((), jnp.int32), params, moments, average, key)


def _over_blocks(
    recipe: Recipe,
    together: tuple[int | None, int],
    heads: Params,
    batch: Batch,
    image_keys: Key[Array, " B"],
    origin: Int32[Array, "B 2"] | None,
    balanced_weight: Float32[Array, ""],
    features: Float[Array, "B H W C"],
) -> tuple[Gradient, MaskLoss]:
    """`passes.gradient` in a loop over blocks of images and masks; blocks without a valid mask cost nothing."""
    images, slots = batch.valid.shape
    group = _divisor(images, together[0] or images)
    column = min(slots, together[1])
    padded = -(-slots // column) * column  # slots that no photo has are never computed
    ratio = cell_ratio(recipe.sam)

    def grouped(x):
        return x.reshape(-1, group, *x.shape[1:])

    def columns(x):
        """(group, slots, ...) as (columns, group, column, ...)."""
        missing = padded - x.shape[1]
        x = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)) if missing else x
        return jnp.moveaxis(x.reshape(group, -1, column, *x.shape[2:]), 1, 0)

    def of_group(sums, xs):
        features, size, masks, valid, keys, origin = xs
        photo = jax.vmap(lambda size: cells.photo(size, masks.shape[-2:], ratio, masks.dtype))(size)
        photo = jnp.broadcast_to(photo[:, None], (group, column, *photo.shape[1:]))
        number = jnp.arange(padded, dtype=jnp.uint32)
        keys = jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(number))(keys)

        def of_block(sums, xs):
            masks, valid, keys = xs
            block = Block(Target(masks, photo), valid, keys, origin)

            def compute(sums):
                return _add(sums, passes.gradient(recipe, heads, features, block, size, balanced_weight))

            return lax.cond(valid.any(), compute, lambda sums: sums, sums), None

        of_heads, terms = sums
        start = Gradient(of_heads, jnp.zeros_like(features)), terms
        (gradient, terms), _ = lax.scan(of_block, start, (columns(masks), columns(valid), columns(keys)))
        return (gradient.params, terms), gradient.features

    start = jax.tree.map(jnp.zeros_like, heads), no_terms(recipe.interaction)
    groups = jax.tree.map(grouped, (features, batch.size, batch.cells, batch.valid, image_keys, origin))
    (of_heads, terms), of_features = lax.scan(of_group, start, groups)
    return Gradient(of_heads, of_features.reshape(features.shape)), terms


def no_terms(config: InteractionConfig) -> MaskLoss:
    """Zeros to add the passes' terms to."""
    return MaskLoss(*[jnp.zeros(config.passes, jnp.float32)] * len(MaskLoss._fields))


def _pieces(batch: Batch, count: int, mesh: Mesh) -> Batch:
    """(B, ...) as (count, B / count, ...). Piece i has every count-th image, so that each stays on its device."""
    spread = NamedSharding(mesh, P(None, *batch_sharding(mesh).spec))

    def cut(x):
        return lax.with_sharding_constraint(x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), spread)

    return jax.tree.map(cut, batch)


def _divisor(size: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, min(size, at_most) + 1) if size % divisor == 0)


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
