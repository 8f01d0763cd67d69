"""The state of a run: everything that the next step depends on, apart from the data."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, UInt32

from samjax.config import SamConfig
from samjax.model import abstract_params, init_params
from samjax.sharding import shardings
from samjax.types import Params, pytree

from .config import TrainConfig
from .optim import optax_numerics
from .tasks import task_type
from .trainable import Trainable, abstract_network, make_trainable


@pytree
class TrainState:
    """All leaves are arrays; parameters, their average and the optimiser's moments are sharded alike."""

    step: Int32[Array | np.ndarray, ""]  # updates done
    params: Any  # what is trained, float32 (`samjax.train.trainable`)
    opt_state: Any  # optax's
    ema: Any  # `params` averaged over steps, or None
    key: UInt32[Array | np.ndarray, "2"]  # raw data of the key that all randomness of the run comes from
    frozen: Any = dataclasses.field(default_factory=dict)  # what is not trained


def init_state(
    config: TrainConfig, sam: SamConfig, params: Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The state before the first step, computed where it will lie; `params` may be on the host or anywhere."""
    start = functools.partial(_start, config, make_trainable(config, sam), optimizer)
    placed = jax.device_put(params, shardings(params, mesh, sam.image_encoder))
    return jax.jit(start, out_shardings=shardings(jax.eval_shape(start, placed), mesh, sam.image_encoder))(placed)


def abstract_state(
    config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes and shardings of the state, for restoring onto this mesh and for ahead-of-time compilation."""
    start = functools.partial(_start, config, make_trainable(config, sam), optimizer)
    state = jax.eval_shape(start, abstract_network(config, sam))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings(state, mesh, sam.image_encoder),
    )


def weights(trainable: Trainable, state: TrainState) -> Params:
    """The network's parameters that are validated and exported: the average, if there is one."""
    return trainable.merge(state.frozen, state.params if state.ema is None else state.ema)


def network_params(config: TrainConfig, sam: SamConfig, kept: Params) -> Params:
    """SAM's parameters, as other programs know them, of what a checkpoint keeps: trained and frozen in one tree."""
    trainable = make_trainable(config, sam)
    flat: dict[str, Any] = flatten_dict(kept, sep="/")

    def filled(shapes: Params) -> Params:
        # What is missing is told by whoever writes the parameters, with a list of names.
        return unflatten_dict({name: flat[name] for name in flatten_dict(shapes, sep="/") if name in flat}, sep="/")

    trained, frozen = jax.eval_shape(trainable.split, abstract_network(config, sam))
    merged = trainable.merge(filled(frozen), filled(trained))
    return {part: merged[part] for part in abstract_params(sam) if part in merged}


def with_new_params(config: TrainConfig, sam: SamConfig, params: Params, mesh: Mesh) -> Params:
    """SAM's parameters and, beside them, the task's own, freshly initialised on their shards."""

    def start(key):
        return task_type(config).new_params(config, sam, key)

    key = jax.random.key(config.run.seed)
    placed = shardings(jax.eval_shape(start, key), mesh, sam.image_encoder)
    return {**params, **jax.jit(start, out_shardings=placed)(key)}


def fresh_params(config: TrainConfig, sam: SamConfig, mesh: Mesh) -> Params:
    """Freshly initialised parameters, computed on their shards."""

    def start(key):
        params = init_params(sam, key)
        return align_attention(params) if config.model.aligned_attention else params

    key = jax.random.key(config.run.seed)
    return jax.jit(start, out_shardings=shardings(jax.eval_shape(start, key), mesh, sam.image_encoder))(key)


def align_attention(params: Params) -> Params:
    """A copy of the parameters with the keys of the decoder's cross-attentions projected as its queries are.

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


def ema_decay(decay: float, step: Int32[Array | np.ndarray, ""]) -> Float32[Array, ""]:
    """The decay of the averaged parameters at a step: smaller at first, so that they soon forget the random start."""
    done = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + done) / (10 + done))


def _start(
    config: TrainConfig, trainable: Trainable, optimizer: optax.GradientTransformation, params: Params
) -> TrainState:
    trained, frozen = trainable.split(params)
    average = None if config.optim.ema is None else jax.tree.map(jnp.copy, trained)
    with optax_numerics():
        moments = optimizer.init(trained)
    key = jax.random.key_data(jax.random.key(config.run.seed))
    return TrainState(jnp.zeros((), jnp.int32), trained, moments, average, key, frozen)
