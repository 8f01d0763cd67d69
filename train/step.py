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
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from samjax.config import SamConfig
from samjax.model import encode
from samjax.sharding import batch_sharding, shardings
from samjax.types import Params

from . import blocks
from .batch import Batch, pixels_of
from .config import TrainConfig
from .execution import blocks_for, decoder_execution, encoder_execution
from .losses import MaskLoss, balanced_weight
from .optim import is_frozen, optax_numerics
from .passes import PassSettings
from .regularise import drop_path_weights
from .state import TrainState, abstract_state, ema_decay
from .window import window_origins

Metrics = dict[str, Any]
StepFunction = Callable[..., tuple[TrainState, Metrics]]  # of state, batch, and the position in the schedules


def make_step(config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> StepFunction:
    """The jitted step. It consumes the state (its buffers are reused) and gives the next one with the step's metrics.

    The loss is the sum over masks and passes, divided by the number of valid masks in the whole batch, wherever on the
    mesh and in whichever piece of an accumulated batch they are. If loss or gradient is not finite the state stays as
    it was, and `metrics["finite"]` is False. A third argument is the position in the schedules, out of `run.steps`;
    without it, that is the number of updates done. Metrics: "loss", "gradient_norm", "masks" (valid ones), "finite",
    and "passes", a `MaskLoss` of means over masks, each with one value a pass.
    """
    # Written exactly as the first state's: the second step would otherwise be another program, compiled again.
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, sam, optimizer, mesh))
    step = _Step(config, sam, optimizer, mesh).step  # a method, whose name the compiled program has
    return jax.jit(step, donate_argnums=0, out_shardings=(placed, NamedSharding(mesh, P())))


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """The step as a function, with what does not change from step to step."""

    config: TrainConfig
    sam: SamConfig
    optimizer: optax.GradientTransformation
    mesh: Mesh

    def step(
        self, state: TrainState, batch: Batch, position: Float32[Array, ""] | None = None
    ) -> tuple[TrainState, Metrics]:
        loss = self.config.loss
        now = jnp.asarray(state.step if position is None else position)
        gradient, terms = self._sum(state, batch, balanced_weight(loss, self.config.run.steps, now))

        masks = batch.valid.sum(dtype=jnp.int32)
        share = 1 / jnp.maximum(masks, 1).astype(jnp.float32)
        over_passes = 1.0 if loss.over_passes == "sum" else 1 / self.config.interaction.passes
        gradient = jax.tree.map(lambda g: g * (share * over_passes), gradient)
        gradient = lax.with_sharding_constraint(gradient, shardings(gradient, self.mesh))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(terms.total.sum())
        updated = self._update(state, gradient, position, finite)
        terms = jax.tree.map(lambda term: term * share, terms)
        mean = terms.total.sum() * over_passes
        return updated, {"loss": mean, "gradient_norm": norm, "masks": masks, "finite": finite, "passes": terms}

    def _sum(self, state: TrainState, batch: Batch, balanced: Float32[Array, ""]) -> tuple[Params, MaskLoss]:
        """Gradient and loss terms, summed over the masks of the whole batch, one piece after the other."""
        pieces = _pieces(batch, self.config.run.accumulate, self.mesh)
        key = jax.random.wrap_key_data(jnp.asarray(state.key))
        of_piece = functools.partial(self._sum_piece, state.params, key=key, balanced=balanced)
        if self.config.run.accumulate == 1:
            return of_piece(jax.tree.map(lambda x: x[0], pieces))
        zeros = jax.tree.map(jnp.zeros_like, state.params), blocks.no_terms(self.config.interaction)
        return lax.scan(lambda sums, piece: (blocks.add(sums, of_piece(piece)), None), zeros, pieces)[0]

    def _sum_piece(
        self, params: Params, batch: Batch, key: Key[Array, ""], balanced: Float32[Array, ""]
    ) -> tuple[Params, MaskLoss]:
        """Gradient and loss terms, summed over the masks of a piece of the batch."""
        # From a photo's place in the run, and then a mask's slot, so that mesh, processes, accumulation and resuming
        # change no draw.
        image_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch.position)
        split = jax.vmap(functools.partial(jax.random.split, num=3))
        path_keys, mask_keys, window_keys = jnp.moveaxis(split(image_keys), 1, 0)
        origin = window_origins(self.sam, self.config.model.window, window_keys)
        features_of = self._encoder(batch, path_keys, origin)
        # The heads are small and used in every pass: gathered once, and not in each.
        heads = {name: params[name] for name in ("prompt_encoder", "mask_decoder")}
        heads = lax.with_sharding_constraint(heads, NamedSharding(self.mesh, P()))
        run = self.config.run
        settings = PassSettings(
            self.sam, self.config.interaction, self.config.loss, decoder_execution(self.config), run.dropout
        )
        together = blocks_for(self.config, self.mesh)
        over_blocks = functools.partial(blocks.gradient, settings, together, heads, batch, mask_keys, origin, balanced)
        if is_frozen(self.config.optim, self.sam, "image_encoder"):
            gradient, terms = over_blocks(features_of(params["image_encoder"]))
            of_encoder = jax.tree.map(jnp.zeros_like, params["image_encoder"])
        else:
            features, pull_back = jax.vjp(features_of, params["image_encoder"])
            gradient, terms = over_blocks(features)
            (of_encoder,) = pull_back(gradient.features)
        return {"image_encoder": of_encoder, **gradient.params}, terms

    def _encoder(
        self, batch: Batch, path_keys: Key[Array, " B"], origin: Int32[Array, "B 2"] | None
    ) -> Callable[[Params], Float[Array, "B H W C"]]:
        """The batch's features as a function of the encoder's parameters."""
        pixels = pixels_of(batch)
        branch_weights = drop_path_weights(self.sam, self.config.run.drop_path, path_keys)
        execution = encoder_execution(self.config, self.mesh)

        def features_of(encoder: Params) -> Float[Array, "B H W C"]:
            random = {"branch_weights": branch_weights, "origin": origin}
            features = encode(self.sam, {"image_encoder": encoder}, pixels, execution, **random)
            return features.astype(jnp.float32)  # the gradients of hundreds of passes are summed in it

        return features_of

    def _update(
        self, state: TrainState, gradient: Params, position: Float32[Array, ""] | None, finite: Bool[Array, ""]
    ) -> TrainState:
        """The next state; the same one if loss or gradient is not finite."""
        with optax_numerics():
            told = {} if position is None else {"position": position}
            updates, opt_state = self.optimizer.update(gradient, state.opt_state, state.params, **told)
        params = optax.apply_updates(state.params, updates)
        decay, average = self.config.optim.ema, None
        if decay is not None:
            average = optax.incremental_update(params, state.ema, 1 - ema_decay(decay, state.step))
        updated = TrainState(state.step + 1, params, opt_state, average, state.key)
        return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)


def _pieces(batch: Batch, count: int, mesh: Mesh) -> Batch:
    """(B, ...) as (count, B / count, ...). Piece i has every count-th image, so that each stays on its device."""
    spread = NamedSharding(mesh, P(None, *batch_sharding(mesh).spec))

    def cut(x):
        return lax.with_sharding_constraint(x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), spread)

    return jax.tree.map(cut, batch)
